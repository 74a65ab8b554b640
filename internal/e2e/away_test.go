package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cohort/internal/e2e/cluster"
)

// A secondary that was away, with its mysqld, until the log was compacted beyond it
// is brought what it lacks by another member.
func TestAwayForTooLong(t *testing.T) {
	g := startGroupWith(t, cluster.Options{MemberOptions: []string{"cohort_log_space=8388608"}})
	db := open(t, g.Primary.Through("plain", "plain"), "")
	execAll(t, db, "CREATE TABLE away (id INT AUTO_INCREMENT PRIMARY KEY, pad LONGTEXT)")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// When the others compact their logs is theirs to decide, every few seconds: a
	// member that is back without a fetch goes away again.
	for round := 0; !fetched(t, g.Secondary); round++ {
		if err := g.Kill(ctx, g.Secondary.Name, cluster.Both); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			execAll(t, db, fmt.Sprintf("INSERT INTO away (pad) VALUES (REPEAT('%c', 500000))", 'a'+(round+i)%26))
		}
		if err := g.Restart(ctx, g.Secondary.Name, cluster.Both); err != nil {
			t.Fatal(err)
		}
		if _, err := g.AwaitOnline(ctx); err != nil {
			t.Fatal(err)
		}
	}
	execAll(t, open(t, g.Secondary.Through("plain", "plain"), ""), "INSERT INTO away (pad) VALUES ('back')")
	g.check(t)
}

// fetched says whether a member's log tells of a fetch that was completed.
func fetched(t *testing.T, m cluster.Member) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(m.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cohort.log" {
			return nil
		}
		text, err := os.ReadFile(path)
		found = found || bytes.Contains(text, []byte("all transactions were fetched"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
