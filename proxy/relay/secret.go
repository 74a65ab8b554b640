package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"

	"cohort/internal/wire"
)

// ErrNoSecret says that the client's password was never seen, so that nobody but
// the client can open its session again.
var ErrNoSecret = errors.New("the client's password is not known")

// Secret is what was learnt about a client's password.
type Secret struct {
	// Password is the cleartext; meaningful if Known.
	Password []byte
	Known    bool
	// SHA256 is the hash that caching_sha2_password's fast path needs, if only
	// that is known.
	SHA256 *[32]byte
}

// Usable reports whether a login can be tried with s.
func (s *Secret) Usable() bool { return s.Known || s.SHA256 != nil }

const (
	secretsPerUser = 2 // an account may have two passwords at a time
	maxSecretUsers = 10_000
)

// Secrets remembers, in memory only, passwords that a backend has accepted. It is
// safe for concurrent use.
type Secrets struct {
	mu    sync.Mutex
	users map[string][][]byte
}

// NewSecrets makes an empty store.
func NewSecrets() *Secrets { return &Secrets{users: make(map[string][][]byte)} }

// Learn remembers that user logged in with password.
func (s *Secrets) Learn(user string, password []byte) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.users[user]
	for i, p := range have {
		if bytes.Equal(p, password) {
			have[0], have[i] = have[i], have[0]
			return
		}
	}
	if len(have) == 0 && len(s.users) >= maxSecretUsers {
		for u := range s.users { // any one: they are all alike
			delete(s.users, u)
			break
		}
	}
	have = append([][]byte{bytes.Clone(password)}, have...)
	s.users[user] = have[:min(len(have), secretsPerUser)]
}

// Match returns the password of user that a caching_sha2_password or
// mysql_native_password answer to salt was made from, if it is remembered.
func (s *Secrets) Match(user, plugin string, salt, answer []byte) ([]byte, bool) {
	if s == nil || len(answer) == 0 {
		return nil, false
	}
	s.mu.Lock()
	have := append([][]byte(nil), s.users[user]...)
	s.mu.Unlock()
	for _, p := range have {
		if madeFrom(p, plugin, salt, answer) {
			return p, true
		}
	}
	return nil, false
}

func madeFrom(password []byte, plugin string, salt, answer []byte) bool {
	switch plugin {
	case wire.PluginCachingSHA2:
		_, ok := wire.RecoverSHA256(answer, salt, sha256.Sum256(sum256(password)))
		return ok
	case wire.PluginNative:
		return bytes.Equal(wire.ScrambleNative(salt, password), answer)
	}
	return false
}

func sum256(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
