package proxy

import (
	"slices"
	"strings"
	"testing"

	"cohort/internal/wire"
	"cohort/sqlparse"
)

func TestLastGTIDs(t *testing.T) {
	const u, v = "cd60f94b-e552-11f1-9c2c-02fc00000001", "dd60f94b-e552-11f1-9c2c-02fc00000001"
	for in, want := range map[string][]string{
		"":                                    nil,
		u + ":5":                              {u + ":5"},
		u + ":1-7":                            {u + ":7"},
		u + ":1-7:9":                          {u + ":9"},
		u + ":1-7:9-12,\n" + v + ":3":         {u + ":12", v + ":3"},
		u + ":4:local:1-2:other:7":            {u + ":4", u + ":local:2", u + ":other:7"},
		u + ":local:8":                        {u + ":local:8"},
		u + ":5," + u + ":6":                  {u + ":5", u + ":6"},
		"nonsense":                            nil,
		strings.Repeat(u+":1,", 3) + v + ":2": {u + ":1", u + ":1", u + ":1", v + ":2"},
	} {
		if got := lastGTIDs(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTransactionState(t *testing.T) {
	for _, tt := range []struct {
		state          string
		blind          bool
		touched, wrote bool
	}{
		{"T_______", false, false, false},
		{"T_____S_", false, false, false},
		{"T_R___S_", false, true, false},
		{"Tr______", false, true, false},
		{"T___W___", false, true, true},
		{"T__w____", false, true, true},
		{"T_______", true, true, true},
		{"", false, true, true}, // never told: everything is possible
	} {
		tx := transaction{xid: "x", state: tt.state, blind: tt.blind}
		if tx.touched() != tt.touched || tx.wrote() != tt.wrote {
			t.Errorf("%+v: touched %v, wrote %v", tt, tx.touched(), tx.wrote())
		}
	}
}

func TestUnescape(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		mode     sqlparse.Mode
	}{
		{`'a''b'`, "a'b", sqlparse.Mode{}},
		{`'a\'b\n'`, "a'b\n", sqlparse.Mode{}},
		{`'a\'`, `a\`, sqlparse.Mode{NoBackslashEscapes: true}},
		{`"COMMIT"`, "COMMIT", sqlparse.Mode{}},
	} {
		if got := string(unescape([]byte(tt.in), tt.mode)); got != tt.want {
			t.Errorf("%s: %q", tt.in, got)
		}
	}
}

// FuzzTexts feeds what clients and servers send to what reads it here.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"GET DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT, @b = NUMBER", "FLUSH TABLES WITH READ LOCK",
		"'a\\'b'", "u:1-2:tag:3", "PREPARE s FROM 'COMMIT'", "\x00\x01SELECT 1"} {
		f.Add([]byte(s))
	}
	d := &diagnostics{conditions: []condition{{level: "Error", code: "1062", message: "m", state: "23000"}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		lastGTIDs(string(b))
		unescape(b, sqlparse.Mode{})
		statementName(b)
		d.assignments(b, sqlparse.Mode{})
		mentions(b, sqlparse.Mode{}, "FLUSH", "LOCK")
		globalReadLock(b, sqlparse.Mode{})
		s := session{diag: d, shows: 0xffff, shownVars: "*"}
		trackers := wire.Trackers(b)
		s.shownTrackers(trackers)
		ok := wire.OK{Trackers: trackers}
		s.noteOK(&ok)
	})
}
