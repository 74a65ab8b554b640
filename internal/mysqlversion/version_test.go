package mysqlversion_test

import (
	"testing"

	"cohort/internal/mysqlversion"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		text          string
		v             mysqlversion.Version
		short         string
		enough        bool
		status, reset string
	}{
		{"8.0.29", 80029, "8.0.29", false, "SHOW MASTER STATUS", "RESET MASTER"},
		{"8.0.30", 80030, "8.0.30", true, "SHOW MASTER STATUS", "RESET MASTER"},
		{"8.0.36-0ubuntu0.22.04.1", 80036, "8.0.36", true, "SHOW MASTER STATUS", "RESET MASTER"},
		{"8.1.0-commercial", 80100, "8.1.0", true, "SHOW MASTER STATUS", "RESET MASTER"},
		{"8.2.0", 80200, "8.2.0", true, "SHOW BINARY LOG STATUS", "RESET BINARY LOGS AND GTIDS"},
		{"8.4.3-log", 80403, "8.4.3", true, "SHOW BINARY LOG STATUS", "RESET BINARY LOGS AND GTIDS"},
		{"9.7.4-2", 90704, "9.7.4", true, "SHOW BINARY LOG STATUS", "RESET BINARY LOGS AND GTIDS"},
		{"10.11.0", 101100, "10.11.0", true, "SHOW BINARY LOG STATUS", "RESET BINARY LOGS AND GTIDS"},
	} {
		v := mysqlversion.Parse(c.text)
		if v != c.v || v.String() != c.short || v >= mysqlversion.Oldest != c.enough || v.BinlogStatus() != c.status || v.ResetBinlogs() != c.reset {
			t.Errorf("%s: %d, %s, %s, %s", c.text, int(v), v, v.BinlogStatus(), v.ResetBinlogs())
		}
	}
	for _, text := range []string{"", "8", "8.0", "x.y.z", "-8.0.30", "8.-1.30", "8.0.300"} {
		if v := mysqlversion.Parse(text); v != 0 {
			t.Errorf("%q: %d", text, int(v))
		}
	}
	if s := mysqlversion.Version(0).ResetBinlogs(); s != "RESET BINARY LOGS AND GTIDS" {
		t.Error(s)
	}
}
