// Package scripts carries the shell scripts that the program itself runs, so
// that the single binary needs no other file. It owns nothing else and must
// never import another package of cohort.
package scripts

import _ "embed"

// Mysqld is mysqld.sh: it finds or fetches a stock mysqld. Run it as
// bash -c Mysqld mysqld.sh ARGS; see its head for arguments and output.
//
//go:embed mysqld.sh
var Mysqld string
