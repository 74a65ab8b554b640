// Package battery runs clients against a group while processes are killed and
// stopped, networks cut and disks filled, and then holds the group to what the
// clients saw: nothing acknowledged lost or doubled, no anomaly that a single
// mysqld does not show, all members with the same data.
//
// It owns the workloads, their checkers, the faults and the report. A checker
// must never pass what it could not decide without saying so, and no answer that
// leaves the outcome open may ever count as an acknowledgement or a refusal.
package battery
