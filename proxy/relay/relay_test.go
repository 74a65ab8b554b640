package relay

import (
	"testing"

	"cohort/internal/mysqldtest"
)

// TestRelay runs everything that needs a server against one.
func TestRelay(t *testing.T) {
	s := mysqldtest.Start(t, "max_allowed_packet=1G")
	prepareServer(t, s)
	for _, c := range []struct {
		name string
		test func(*testing.T, *mysqldtest.Server)
	}{
		{"Drivers", testDrivers},
		{"BigPackets", testBigPackets},
		{"GoMySQLClient", testGoMySQLClient},
		{"Wrapped", testWrapped},
		{"Split", testSplit},
		{"StreamedCommand", testStreamedCommand},
		{"Reopen", testReopen},
		{"FastPathTeaches", testFastPathTeaches},
		{"WrongPassword", testWrongPassword},
		{"ChangeUser", testChangeUser},
		{"ProtocolViolations", testProtocolViolations},
		{"Watch", testWatch},
		{"IdleTimeout", testIdleTimeout},
		{"SamePackets", testSamePackets},
		{"CommandLineClients", testCommandLineClients},
		{"TooLarge", testTooLarge},
		{"RequireSSL", testRequireSSL},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}
