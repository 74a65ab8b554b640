package wire

import (
	"bytes"
	"context"
	"fmt"
)

// authenticator is the client's side of the authentication exchange.
type authenticator struct {
	c      *Conn
	cfg    *Config
	plugin string
	salt   []byte
}

func (a *authenticator) known() bool {
	switch a.plugin {
	case PluginNative, PluginSHA256, PluginCachingSHA2, PluginClear:
		return true
	}
	return false
}

// first is the plugin's answer to its challenge.
func (a *authenticator) first() ([]byte, error) {
	pw := []byte(a.cfg.Password)
	switch a.plugin {
	case PluginNative:
		return ScrambleNative(a.salt, pw), nil
	case PluginCachingSHA2:
		if len(pw) == 0 && a.cfg.PasswordSHA256 != nil {
			return ScrambleSHA256Hash(a.salt, *a.cfg.PasswordSHA256), nil
		}
		return ScrambleSHA256(a.salt, pw), nil
	case PluginSHA256:
		switch {
		case len(pw) == 0:
			return []byte{0}, nil
		case a.c.Encrypted():
			return append(pw, 0), nil
		}
		return []byte{SHA256RequestKey}, nil
	case PluginClear:
		if !a.c.Secure() {
			return nil, ErrInsecureAuth
		}
		return append(pw, 0), nil
	}
	return nil, fmt.Errorf("%w: %s", ErrAuthPlugin, a.plugin)
}

func (a *authenticator) send(p []byte) error {
	if err := a.c.WritePacket(p); err != nil {
		return err
	}
	return a.c.Flush()
}

// run answers the server until it says OK or ERR.
func (a *authenticator) run(caps Capability) (OK, error) {
	for range 16 { // every exchange there is takes fewer packets
		p, err := a.c.ReadPacket(maxAuthPacket)
		if err != nil {
			return OK{}, err
		}
		if len(p) == 0 {
			return OK{}, malformed("empty authentication packet")
		}
		switch p[0] {
		case HeaderOK:
			ok, err := ParseOK(p, caps)
			ok.Info, ok.Trackers = bytes.Clone(ok.Info), bytes.Clone(ok.Trackers)
			return ok, err
		case HeaderERR:
			e, err := ParseERR(p)
			if err != nil {
				return OK{}, err
			}
			return OK{}, e
		case HeaderEOF:
			plugin, salt, err := ParseAuthSwitch(p)
			if err != nil {
				return OK{}, err
			}
			a.plugin, a.salt = plugin, bytes.Clone(salt)
			first, err := a.first()
			if err == nil {
				err = a.send(first)
			}
			if err != nil {
				return OK{}, err
			}
		case HeaderAuthMore:
			if err := a.more(p[1:]); err != nil {
				return OK{}, err
			}
		default:
			return OK{}, malformed("authentication packet")
		}
	}
	return OK{}, malformed("authentication does not end")
}

// more answers an AuthMoreData packet.
func (a *authenticator) more(data []byte) error {
	pw := []byte(a.cfg.Password)
	switch {
	case a.plugin == PluginCachingSHA2 && len(data) == 1 && data[0] == CachingFastOK:
		return nil
	case a.plugin == PluginCachingSHA2 && len(data) == 1 && data[0] == CachingFullAuth:
		if len(pw) == 0 && a.cfg.PasswordSHA256 != nil {
			return fmt.Errorf("%w: the server wants the password itself", ErrAuthPlugin)
		}
		if a.c.Secure() {
			return a.send(append(pw, 0))
		}
		return a.send([]byte{CachingRequestKey})
	case a.plugin == PluginCachingSHA2 || a.plugin == PluginSHA256:
		key, err := ParsePublicKey(data)
		if err != nil {
			return err
		}
		enc, err := EncryptPassword(pw, a.salt, key)
		if err != nil {
			return err
		}
		return a.send(enc)
	}
	return malformed("unexpected authentication data")
}

// ChangeUser logs in as another user on the same connection. plugin is the one to
// begin with, "" to send nothing and be told. The client is broken if the server
// refuses.
func (cl *Client) ChangeUser(ctx context.Context, user, password, db, plugin string) (OK, error) {
	if cl.broken != nil {
		return OK{}, cl.broken
	}
	stop := closeOnDone(ctx, cl.Conn.nc)
	ok, err := cl.changeUser(&Config{User: user, Password: password, DB: db}, plugin)
	return ok, cl.finish(ctx, stop, err)
}

func (cl *Client) changeUser(cfg *Config, plugin string) (OK, error) {
	a := authenticator{c: cl.Conn, cfg: cfg, plugin: plugin, salt: cl.Greeting.Salt}
	var first []byte
	if plugin == "" {
		a.plugin, plugin = PluginCachingSHA2, PluginCachingSHA2
	} else {
		var err error
		if first, err = a.first(); err != nil {
			return OK{}, err
		}
	}
	cu := ChangeUser{User: cfg.User, AuthResponse: first, DB: cfg.DB, Charset: uint16(defaultCharset), AuthPlugin: plugin}
	cl.Conn.Seq = 0
	if err := a.send(cu.Append(nil, cl.Caps)); err != nil {
		return OK{}, err
	}
	return a.run(cl.Caps)
}
