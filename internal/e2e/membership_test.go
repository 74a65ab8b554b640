package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"cohort/internal/e2e/cluster"
	"cohort/internal/e2e/ledger"
)

// listed returns the members that one of them counts, by uuid, with their states.
func listed(ctx context.Context, via cluster.Member) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, via.HTTP+"/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var st struct {
		Members []struct {
			ID    string `json:"member_id"`
			State string `json:"state"`
		} `json:"members"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, m := range st.Members {
		out[m.ID] = m.State
	}
	return out, nil
}

// Members come and go while others write: two are added, one is told to leave and
// comes back, one is away for so long that the group goes on without it. In the end
// all five hold every acknowledged write.
func TestMembersComeAndGo(t *testing.T) {
	member := func(ctx context.Context, g *group, name string) (cluster.Member, error) {
		return g.now(ctx, func(ms []cluster.Member) (cluster.Member, error) {
			for _, m := range ms {
				if m.Name == name {
					return m, nil
				}
			}
			return cluster.Member{}, fmt.Errorf("no member %s", name)
		})
	}
	// gone waits until a member of the three that stay counts without m.
	gone := func(ctx context.Context, g *group, m cluster.Member) error {
		return g.awaitStatus(ctx, func([]cluster.Member) error {
			got, err := listed(ctx, g.Members[0])
			if err == nil && (len(got) != 4 || got[m.UUID] != "") {
				err = fmt.Errorf("%s counts %v", g.Members[0].Name, got)
			}
			return err
		})
	}
	underFault(t, 4, []ledger.Kind{ledger.Autocommit, ledger.Multi}, func(ctx context.Context, g *group, round int) error {
		switch round {
		case 0, 1:
			name, err := g.Add(ctx)
			if want := fmt.Sprint("m", 4+round); err == nil && name != want {
				err = fmt.Errorf("added %q, not %s", name, want)
			}
			return err
		case 2:
			m, err := member(ctx, g, "m4")
			if err != nil {
				return err
			}
			db := open(t, m.Through("app", ""), "")
			if _, err := db.ExecContext(ctx, "STOP GROUP_REPLICATION"); err != nil {
				return err
			}
			if err := gone(ctx, g, m); err != nil {
				return err
			}
			// On a machine that stands still a START gives up waiting for the group.
			for {
				_, err := db.ExecContext(ctx, "START GROUP_REPLICATION")
				if err == nil || errno(err) != 3092 && errno(err) != 3097 || ctx.Err() != nil {
					return err
				}
			}
		default:
			m, err := member(ctx, g, "m5")
			if err != nil {
				return err
			}
			if err := g.Kill(ctx, "m5", cluster.Both); err != nil {
				return err
			}
			if err := gone(ctx, g, m); err != nil {
				return err
			}
			return g.Restart(ctx, "m5", cluster.Both)
		}
	})
}
