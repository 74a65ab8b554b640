// Package cluster drives a group through the program's own sandbox
// subcommands, as a user's script would, and looks at the servers behind it.
//
// It owns the processes that the sandbox starts for it, through the sandbox
// only: it must never signal a process by itself and never change data.
package cluster
