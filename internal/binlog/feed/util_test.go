package feed

import (
	"crypto/tls"
	"os"
	"testing"
)

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// damage overwrites 100 bytes of a file from offset on.
func damage(t *testing.T, path string, offset int64) {
	t.Helper()
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.WriteAt(make([]byte, 100), offset); err != nil {
		t.Fatal(err)
	}
}
