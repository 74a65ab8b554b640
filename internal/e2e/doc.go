// Package e2e tests the whole program from outside: real groups on stock
// mysqld, unmodified clients, processes killed at any moment.
//
// Its tests own the groups that they start. They must see the program only as
// its users do (the sandbox's subcommands, the client port, the servers'
// sockets) and must never import what it is made of.
//
// They need the program: $COHORT_BIN, or bin/cohort.
package e2e
