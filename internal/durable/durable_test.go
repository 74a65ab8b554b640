package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	// What a broken-off attempt left does not matter, however long it is.
	if err := os.WriteFile(path+".new", []byte("a longer text than the others"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); string(b) != text || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if names, err := os.ReadDir(filepath.Dir(path)); len(names) != 1 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	if err := WriteFile(filepath.Join(path, "below a file"), nil, 0o600); err == nil {
		t.Error("a file below a file")
	}
	if err := SyncDir(path + ".none"); err == nil {
		t.Error("a directory that is not there")
	}
}
