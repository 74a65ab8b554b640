package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"cohort/internal/wire"
)

// authRelay carries one authentication exchange across two legs that may differ
// in whether a password may cross them in clear. The backend decides; authRelay
// translates, and remembers what it saw.
type authRelay struct {
	r      *Relay
	b      *wire.Conn
	plugin string
	salt   []byte

	scramble []byte // the client's answer to caching_sha2 or native
	clear    []byte // the password, if known
	known    bool
	factor   int // of multi-factor authentication; only the first is learnt

	secret Secret
}

var errDenied = errors.New("authentication failed")

func (a *authRelay) fail(e *wire.ServerError) error {
	return errors.Join(fmt.Errorf("%w: %w", errDenied, e), a.r.tell(e))
}

func (a *authRelay) refuse(text string) error {
	return a.fail(wire.NewError(1105, "HY000", "%s", text))
}

func (a *authRelay) learn(password []byte) {
	if a.factor == 0 {
		a.clear, a.known = bytes.Clone(password), true
	}
}

// answer takes the client's answer to a plugin's challenge and returns what the
// backend is to get in its place.
func (a *authRelay) answer(resp []byte) ([]byte, error) {
	a.scramble = nil
	if a.factor == 0 {
		// Nothing learnt from the answer to an earlier challenge holds: a client
		// may send nothing at first and wait to be told the account's plugin.
		a.clear, a.known = nil, false
	}
	switch a.plugin {
	case wire.PluginCachingSHA2, wire.PluginNative:
		if len(resp) == 0 || len(resp) == 1 && resp[0] == 0 {
			a.learn(nil)
			return resp, nil
		}
		a.scramble = bytes.Clone(resp)
		return resp, nil
	case wire.PluginSHA256:
		return a.answerSHA256(resp)
	case wire.PluginClear:
		if a.r.Client.Secure() && !a.b.Secure() {
			return nil, a.refuse("The password would cross an open connection to the server")
		}
		a.learn(trimNul(resp))
	}
	return resp, nil
}

func (a *authRelay) answerSHA256(resp []byte) ([]byte, error) {
	if len(resp) == 0 || len(resp) == 1 && resp[0] == 0 {
		a.learn(nil)
		return resp, nil
	}
	pw, err := a.password(resp, wire.SHA256RequestKey)
	if err != nil {
		return nil, err
	}
	if pw == nil {
		return resp, nil // encrypted for the backend's own key
	}
	a.learn(pw)
	// Unlike caching_sha2_password, the server does not take a password in clear
	// over a Unix socket here.
	if a.b.Encrypted() {
		return append(pw, 0), nil
	}
	return []byte{wire.SHA256RequestKey}, nil
}

// password gets the cleartext out of the client's packet p, serving our public
// key first if p asks for it. nil means p can only be read by the backend.
func (a *authRelay) password(p []byte, requestKey byte) ([]byte, error) {
	c := a.r.Client
	// A password in clear ends with NUL. Some clients ask for the key on a Unix
	// socket too.
	served := len(p) == 1 && p[0] == requestKey
	if c.Secure() && !served {
		return append([]byte{}, trimNul(p)...), nil
	}
	if served {
		if err := send(c, append([]byte{wire.HeaderAuthMore}, a.r.acc.pubKey...)); err != nil {
			return nil, clientErr(err)
		}
		var err error
		if p, err = c.ReadPacket(maxAuthPacket); err != nil {
			return nil, clientErr(err)
		}
	}
	pw, err := wire.DecryptPassword(p, a.salt, a.r.acc.opt.RSAKey)
	if err != nil {
		if !served && !a.b.Secure() {
			return nil, nil
		}
		return nil, a.refuse("The password was encrypted for another public key than this server's")
	}
	return append([]byte{}, pw...), nil
}

func trimNul(p []byte) []byte {
	if n := len(p); n > 0 && p[n-1] == 0 {
		return p[:n-1]
	}
	return p
}

// run relays until the backend accepts or refuses. The OK is returned, not sent;
// an ERR has been sent.
func (a *authRelay) run(caps wire.Capability) (wire.OK, error) {
	for range 32 { // longer than any exchange there is
		p, err := a.b.ReadPacket(maxAuthPacket)
		if err != nil {
			return wire.OK{}, errors.Join(backendErr(err), a.r.tell(wire.NewError(2013, "HY000",
				"Lost connection to the server at reading authorization packet")))
		}
		if len(p) == 0 {
			return wire.OK{}, backendErr(wire.ErrMalformed)
		}
		switch p[0] {
		case wire.HeaderOK:
			ok, err := wire.ParseOK(p, caps)
			if err != nil {
				return ok, backendErr(err)
			}
			ok.Info, ok.Trackers = bytes.Clone(ok.Info), bytes.Clone(ok.Trackers)
			a.finish()
			return ok, nil
		case wire.HeaderERR:
			e, err := wire.ParseERR(p)
			if err != nil {
				return wire.OK{}, backendErr(err)
			}
			return wire.OK{}, a.fail(e)
		case wire.HeaderEOF, wire.HeaderNextFactor:
			err = a.switchPlugin(p)
		case wire.HeaderAuthMore:
			err = a.more(p)
		default:
			err = backendErr(wire.ErrMalformed)
		}
		if err != nil {
			return wire.OK{}, err
		}
	}
	return wire.OK{}, backendErr(fmt.Errorf("%w: authentication does not end", wire.ErrMalformed))
}

// ask forwards p to the client and reads its answer.
func (a *authRelay) ask(p []byte) ([]byte, error) {
	err := send(a.r.Client, p)
	if err == nil {
		p, err = a.r.Client.ReadPacket(maxAuthPacket)
	}
	if err != nil {
		return nil, clientErr(err)
	}
	return p, nil
}

func (a *authRelay) reply(p []byte) error {
	if err := send(a.b, p); err != nil {
		return backendErr(err)
	}
	return nil
}

func (a *authRelay) switchPlugin(p []byte) error {
	if !a.r.ClientCaps.Has(wire.PluginAuth) || len(p) < 2 {
		return a.fail(wire.NewError(1251, "08004", "Client does not support authentication protocol requested by server; consider upgrading MySQL client"))
	}
	if p[0] == wire.HeaderNextFactor {
		a.factor++
	}
	norm := append([]byte{wire.HeaderEOF}, p[1:]...)
	plugin, salt, err := wire.ParseAuthSwitch(norm)
	if err != nil {
		return backendErr(err)
	}
	a.plugin, a.salt = plugin, bytes.Clone(salt)
	p = bytes.Clone(p)
	resp, err := a.ask(p)
	if err != nil {
		return err
	}
	out, err := a.answer(resp)
	if err != nil {
		return err
	}
	return a.reply(out)
}

// more handles AuthMoreData.
func (a *authRelay) more(p []byte) error {
	switch data := p[1:]; {
	case a.plugin == wire.PluginCachingSHA2 && len(data) == 1 && data[0] == wire.CachingFastOK:
		return a.fastOK(p)
	case a.plugin == wire.PluginCachingSHA2 && len(data) == 1 && data[0] == wire.CachingFullAuth:
		return a.fullAuth(p)
	case a.plugin == wire.PluginSHA256 && a.known:
		return a.encryptFor(data)
	}
	// A plugin that relay knows nothing about: one answer to each packet.
	resp, err := a.ask(bytes.Clone(p))
	if err != nil {
		return err
	}
	return a.reply(resp)
}

// fastOK: the backend is content with the scramble. Where the password is not
// known and is wanted, the client is asked for it as if the backend had.
func (a *authRelay) fastOK(p []byte) error {
	a.matchRemembered()
	demand := a.r.acc.opt.DemandPassword || a.r.acc.opt.DemandQuietly && a.r.sendsPassword()
	if a.known || !demand || a.factor != 0 {
		// The OK follows at once: no flush.
		if err := a.r.Client.WritePacket(p); err != nil {
			return clientErr(err)
		}
		return nil
	}
	resp, err := a.ask([]byte{wire.HeaderAuthMore, wire.CachingFullAuth})
	if err != nil {
		return err
	}
	pw, err := a.password(resp, wire.CachingRequestKey)
	if err != nil || pw == nil {
		return err
	}
	// Only the password that the backend accepted the scramble of is learnt.
	if !madeFrom(pw, a.plugin, a.salt, a.scramble) {
		return a.fail(wire.NewError(1045, "28000", "Access denied for user '%s'", a.r.Login.User))
	}
	a.learn(pw)
	return nil
}

// fetchers are drivers, as they name themselves, that ask for the public key
// whenever it is wanted.
var fetchers = [...]string{"Go-MySQL-Driver", "Node-MySQL-2"}

// sendsPassword reports whether the client sends its password on demand,
// however it is configured.
func (r *Relay) sendsPassword() bool {
	for _, name := range fetchers {
		if bytes.Contains(r.Login.Attributes, []byte(name)) {
			return true
		}
	}
	return r.Client.Secure()
}

// fullAuth: the backend wants the password itself.
func (a *authRelay) fullAuth(p []byte) error {
	if a.matchRemembered(); a.known && a.factor == 0 {
		// The scramble proves that the client knows what we know.
		if err := a.r.Client.WritePacket([]byte{wire.HeaderAuthMore, wire.CachingFastOK}); err != nil {
			return clientErr(err)
		}
		return a.sendPassword(a.clear)
	}
	resp, err := a.ask(p)
	if err != nil {
		return err
	}
	pw, err := a.password(resp, wire.CachingRequestKey)
	if err != nil {
		return err
	}
	if pw == nil {
		return a.reply(resp) // encrypted for the backend's own key
	}
	a.learn(pw)
	return a.sendPassword(pw)
}

func (a *authRelay) sendPassword(pw []byte) error {
	if a.b.Secure() {
		return a.reply(append(bytes.Clone(pw), 0))
	}
	if err := a.reply([]byte{wire.CachingRequestKey}); err != nil {
		return err
	}
	p, err := a.b.ReadPacket(maxAuthPacket)
	if err != nil {
		return backendErr(err)
	}
	if len(p) < 2 || p[0] != wire.HeaderAuthMore {
		return backendErr(fmt.Errorf("%w: no public key", wire.ErrMalformed))
	}
	return a.encryptWith(pw, p[1:])
}

func (a *authRelay) encryptFor(pem []byte) error { return a.encryptWith(a.clear, pem) }

func (a *authRelay) encryptWith(pw, pem []byte) error {
	key, err := wire.ParsePublicKey(pem)
	if err != nil {
		return backendErr(err)
	}
	enc, err := wire.EncryptPassword(pw, a.salt, key)
	if err != nil {
		return backendErr(err)
	}
	return a.reply(enc)
}

func (a *authRelay) matchRemembered() {
	if a.known || a.factor != 0 {
		return
	}
	if pw, ok := a.r.acc.opt.Secrets.Match(a.r.Login.User, a.plugin, a.salt, a.scramble); ok {
		a.learn(pw)
	}
}

// finish records what was learnt now that the backend has accepted it.
func (a *authRelay) finish() {
	a.matchRemembered()
	if !a.known || a.factor != 0 {
		return
	}
	a.secret = Secret{Password: a.clear, Known: true}
	if len(a.clear) > 0 {
		h := sha256.Sum256(a.clear)
		a.secret.SHA256 = &h
		a.r.acc.opt.Secrets.Learn(a.r.Login.User, a.clear)
	}
}
