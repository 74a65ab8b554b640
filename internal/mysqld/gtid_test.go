package mysqld_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"cohort/internal/mysqld"
)

func TestParseGroupSet(t *testing.T) {
	const other = "99999999-2222-3333-4444-555555555555"
	for set, want := range map[string]string{
		"":                                    "0 []",
		group + ":1":                          "1 []",
		group + ":1-5":                        "5 []",
		group + ":1-5:7:9-10":                 "5 [7 9 10]",
		group + ":7:1-5:6":                    "7 []",
		group + ":2-3":                        "0 [2 3]",
		group + ":2-3," + group + ":1":        "3 []",
		other + ":1-9,\n" + group + ":1-2:4":  "2 [4]",
		group + ":1-2:local:1-9:11":           "2 []",
		group + ":local:1-9":                  "0 []",
		group + ":1-2:2-4":                    "4 []",
		other + ":1-2," + group + ":5-6:6-8 ": "0 [5 6 7 8]",
	} {
		s, err := mysqld.ParseGroupSet(set, group)
		if got := fmt.Sprint(s.Low, " ", s.Extra); err != nil || got != want {
			t.Errorf("%q: %s (%v), want %s", set, got, err, want)
		}
	}
	for _, set := range []string{group, group + ":", group + ":0", group + ":5-3", group + ":1-", "x:-1", group + ":5-99999999", group + ":1-9223372036854775807"} {
		if _, err := mysqld.ParseGroupSet(set, group); !errors.Is(err, mysqld.ErrGTIDSet) {
			t.Errorf("%q: %v", set, err)
		}
	}
}

func FuzzParseGroupSet(f *testing.F) {
	for _, s := range []string{"", group + ":1-5:7:9-10", group + ":t:1-2," + group + ":3", ":::", group + ":1-9223372036854775806"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, set string) {
		s, err := mysqld.ParseGroupSet(set, group)
		if err != nil {
			return
		}
		if !slices.IsSorted(s.Extra) || s.Has(s.Low+1) {
			t.Fatalf("%q: %+v", set, s)
		}
		for i, n := range s.Extra {
			if n <= s.Low+1 || i > 0 && n == s.Extra[i-1] {
				t.Fatalf("%q: %+v", set, s)
			}
		}
	})
}
