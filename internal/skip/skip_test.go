package skip

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestList(t *testing.T) {
	name := filepath.Join(t.TempDir(), "list")
	t.Setenv(listEnv, name)
	t.Run("skipped", func(t *testing.T) {
		For(t, "no disk: ", errors.New("not permitted"))
		t.Error("it went on")
	})
	t.Run("noted", func(t *testing.T) { Note(t, "a part") })
	got, err := os.ReadFile(name)
	if want := "TestList/skipped: no disk: not permitted\nTestList/noted: a part\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}
