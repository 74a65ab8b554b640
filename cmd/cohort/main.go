// Command cohort is one member of a replication group in front of a stock
// mysqld, and the tools around it.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

const usage = `cohort: a replication group in front of stock mysqld

usage: cohort COMMAND [flags]

  serve      run one member beside its mysqld (cohort serve --config FILE)
  sandbox    run a whole group on this machine (cohort sandbox --help)
  version    print the version

Start here: cohort sandbox
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	switch args[0] {
	case "serve":
		return serveCommand(args[1:], stdout, stderr)
	case "sandbox":
		return sandboxCommand(args[1:], stdout, stderr)
	case "version", "--version":
		fmt.Fprintln(stdout, "cohort", version())
		return 0
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "cohort: unknown command %q\n\n%s", args[0], usage)
		return 2
	}
}

// version is the module version and, when built from a checkout, its revision.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v
}
