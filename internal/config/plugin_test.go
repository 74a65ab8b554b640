package config

import (
	"math/big"
	"strings"
	"testing"

	"cohort/internal/mysqldtest"
	"cohort/internal/skip"
)

// The group_replication_* keys are those of the real plugin: same names, same
// defaults, same ranges and words, tried on a real server.
func TestKeysAreThePluginsOwn(t *testing.T) {
	s := mysqldtest.Start(t)
	db := s.DB(t)
	if _, err := db.Exec("INSTALL PLUGIN group_replication SONAME 'group_replication.so'"); err != nil {
		skip.For(t, "this server comes without the plugin: ", err)
	}
	if v := s.Value(t, "SELECT VERSION()"); !strings.HasPrefix(v, "9.7.") {
		skip.For(t, "names, defaults and ranges are those of 9.7; this is ", v)
	}
	theirs := map[string]string{}
	rows, err := db.Query("SHOW GLOBAL VARIABLES LIKE 'group\\_replication\\_%'")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			t.Fatal(err)
		}
		theirs[name] = value
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	def := Default()
	for _, k := range Keys() {
		if !strings.HasPrefix(k.Name, "group_replication_") {
			continue
		}
		v, ok := theirs[k.Name]
		if !ok {
			t.Errorf("%s: the plugin has no such variable", k.Name)
			continue
		}
		delete(theirs, k.Name)
		if v != def.text(k) {
			t.Errorf("%s: default %q, the plugin's is %q", k.Name, def.text(k), v)
		}
		// set returns the value afterwards and whether it was taken as given.
		set := func(v string) (string, bool) {
			if _, err := db.Exec("SET GLOBAL " + k.Name + " = " + v); err != nil {
				return err.Error(), false
			}
			got := s.Value(t, "SELECT @@GLOBAL."+k.Name)
			return got, got == strings.Trim(v, "'")
		}
		switch k.kind {
		case kindEnum:
			for _, w := range k.Words {
				if got, ok := set("'" + w + "'"); !ok {
					t.Errorf("%s=%s: the plugin says %s", k.Name, w, got)
				}
			}
		case kindUint, kindSeconds:
			low, high := new(big.Int).SetUint64(k.Min), new(big.Int).SetUint64(k.Max)
			one := big.NewInt(1)
			for _, x := range []struct {
				v    *big.Int
				want bool
			}{{low, true}, {high, true}, {new(big.Int).Sub(low, one), false}, {new(big.Int).Add(high, one), false}} {
				if got, ok := set(x.v.String()); ok != x.want {
					t.Errorf("%s=%s: here accepted=%v, the plugin has %s", k.Name, x.v, x.want, got)
				}
			}
		}
		if _, err := db.Exec("SET GLOBAL " + k.Name + " = DEFAULT"); err != nil {
			// Some cannot be set back by this word; they stand alone.
			t.Logf("%s: %v", k.Name, err)
		}
	}
	for name := range theirs {
		t.Errorf("%s is a variable of the plugin and no key here", name)
	}
}
