// Package rawnet reads and writes stream sockets without announcing a system call
// that may block to the Go scheduler.
//
// Every read and write of package net does. Each such announcement wakes the
// runtime's monitor thread (sysmon) where all was idle, which then looks every 20 µs
// whether the call has blocked: with a lone client's commit that was a seventh of all
// CPU time of a group, and one more thread in everybody's way. A socket of package
// net never blocks: without bytes it says EAGAIN, and the runtime's poller waits.
//
// It must never be used for files, whose reads and writes do block, nor for
// whatever else than bytes to and from sockets. Under the race detector it does
// nothing: that one learns from package net what happened before what.
package rawnet

// most is how many bytes one call moves at most: it keeps its processor from
// everything else, the garbage collector included, while it copies them.
const most = 64 << 10
