package persist

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		t.Helper()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if err := s.Set(map[string]string{"a": "1", "b": "x\ny"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(map[string]string{"a": "2"}); err != nil {
		t.Fatal(err)
	}
	if got, want := open().All(), map[string]string{"a": "2", "b": "x\ny"}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for _, want := range []bool{true, false} {
		if found, err := s.Remove("b"); found != want || err != nil {
			t.Errorf("removed %v (%v)", found, err)
		}
	}
	if got := open().All(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a damaged file was read")
	}
}

// What could not be stored does not count.
func TestStoreThatCannotWrite(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "missing"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(map[string]string{"a": "1"}); err == nil || len(s.All()) != 0 {
		t.Errorf("%v, %v", s.All(), err)
	}
}
