// Package fsync brings a file to stable storage without a thread of this process
// waiting for it.
//
// A goroutine in fsync(2) keeps its processor until the Go runtime's monitor thread
// (sysmon) has taken that away from it, which looks for such calls every 20 µs, and
// another thread has to be woken up for what goes on meanwhile: for a lone client's
// commit that costs more than the fsync does. Linux runs it by itself when it is
// asked to through its asynchronous I/O (io_submit(2), since 4.18). io_uring would do
// write and fsync in one; it was measured to cost 3 to 7 % more of a commit.
//
// It must never report success before the file is on stable storage.
package fsync
