package e2e

import (
	"fmt"
	"testing"
)

// An account with REQUIRE SSL, and require_secure_transport, ask of clients of a
// member what they ask of mysqld's own, though the member's own connection to
// mysqld is a socket.
func TestServersDemandTLS(t *testing.T) {
	g := sharedGroup(t)
	app := open(t, g.Primary.Through("app", "plain"), "")
	execAll(t, app, "CREATE USER demanding IDENTIFIED BY 'pw' REQUIRE SSL", "GRANT SELECT ON plain.* TO demanding",
		"CREATE TABLE t (id INT PRIMARY KEY)")
	defer execAll(t, app, "DROP USER demanding")
	ping := func(addr, user, password, params string) error {
		target := g.Primary.Through("plain", "plain")
		target.Addr, target.User, target.Password = addr, user, password
		db := open(t, target, params)
		defer db.Close()
		_, err := db.ExecContext(t.Context(), "SELECT * FROM t")
		return err
	}
	for _, m := range g.Members {
		addr := m.Through("plain", "plain").Addr
		if err := ping(addr, "demanding", "pw", "tls=skip-verify"); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		if err := ping(addr, "demanding", "pw", ""); errno(err) != 1045 {
			t.Errorf("%s, without TLS: %v", m.Name, err)
		}
	}
	direct := open(t, g.Primary.Direct(), "")
	addr := g.Primary.Through("plain", "plain").Addr
	execAll(t, direct, "SET GLOBAL require_secure_transport = ON")
	defer execAll(t, direct, "SET GLOBAL require_secure_transport = OFF")
	eventually(t, func() error {
		if err := ping(addr, "plain", "plain", ""); errno(err) != 3159 {
			return fmt.Errorf("without TLS: %w", err)
		}
		return nil
	})
	if err := ping(addr, "plain", "plain", "tls=skip-verify"); err != nil {
		t.Error(err)
	}
}
