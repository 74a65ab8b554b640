package mysqld

import (
	"maps"
	"slices"
	"testing"
)

// What SHOW GLOBAL VARIABLES says, of settings that only some versions have.
func TestUnmetInEachVersion(t *testing.T) {
	v97 := map[string]string{
		"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL",
		"binlog_row_value_options": "", "log_replica_updates": "ON", "replica_preserve_commit_order": "ON", "xa_detach_on_prepare": "ON",
		"server_id": "7", "performance_schema": "ON", "offline_mode": "OFF", "replica_skip_errors": "OFF", "replica_exec_mode": "STRICT",
	}
	with := func(base map[string]string, more map[string]string) map[string]string {
		all := maps.Clone(base)
		maps.Copy(all, more)
		return all
	}
	v84 := with(v97, map[string]string{"replica_parallel_type": "LOGICAL_CLOCK"})
	v80 := with(v84, map[string]string{"master_info_repository": "TABLE", "relay_log_info_repository": "TABLE", "log_bin_use_v1_row_events": "OFF"})
	for name, vars := range map[string]map[string]string{"9.7": v97, "8.4": v84, "8.0": v80} {
		if p := unmet(vars); len(p) > 0 {
			t.Errorf("%s by default: %v", name, p)
		}
	}
	odd := with(v80, map[string]string{"replica_parallel_type": "DATABASE", "master_info_repository": "FILE", "relay_log_info_repository": "FILE",
		"log_bin_use_v1_row_events": "ON", "replica_skip_errors": "1062", "replica_exec_mode": "IDEMPOTENT"})
	var names []string
	for _, p := range unmet(odd) {
		names = append(names, p.Name)
	}
	want := []string{"replica_parallel_type", "master_info_repository", "relay_log_info_repository", "log_bin_use_v1_row_events",
		"replica_skip_errors", "replica_exec_mode"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v", names)
	}
	// One that every version has must be there.
	delete(odd, "xa_detach_on_prepare")
	if p := unmet(odd); !slices.ContainsFunc(p, func(p Problem) bool { return p.Name == "xa_detach_on_prepare" }) {
		t.Errorf("got %v", p)
	}
}
