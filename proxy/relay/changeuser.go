package relay

import (
	"errors"

	"cohort/internal/wire"
)

// otherPlugin is a client plugin that no account names.
const otherPlugin = "cohort_none"

// ChangeUser relays the client's present command, a COM_CHANGE_USER, with its
// authentication exchange, and keeps Login up to date. On success the outcome is
// an OK, held if o says so. When the backend refuses, the client has been told,
// the outcome is the error, and the backend closes its connection.
func (r *Relay) ChangeUser(o *ResponseOptions) (Outcome, error) {
	var out Outcome
	if o == nil {
		o = &ResponseOptions{}
	}
	cu, err := wire.ParseChangeUser(r.cmd.Payload, r.ClientCaps)
	if err == nil && r.cmd.Streamed {
		err = wire.ErrPacketTooLarge
	}
	if err != nil {
		return out, errors.Join(clientErr(err), r.SendError(wire.NewError(1047, stateComm, "Unknown command")))
	}
	if err := r.DropCommand(); err != nil {
		return out, err
	}
	login := r.Login
	r.Login.User, r.Login.DB, r.Login.Secret = cu.User, cu.DB, Secret{}
	if cu.Attributes != nil {
		r.Login.Attributes = cu.Attributes
	}
	if cu.Charset != 0 {
		r.Login.Charset = byte(cu.Charset)
	}
	b := r.Backend.Conn
	auth := authRelay{r: r, b: b, plugin: cu.AuthPlugin, salt: r.salt}
	if auth.plugin == "" {
		auth.plugin = wire.PluginNative
	}
	if r.moved {
		// The client's answer is to a salt that this backend never gave: a plugin
		// that it does not have makes it give one.
		auth.plugin, cu.AuthPlugin, cu.AuthResponse = otherPlugin, otherPlugin, nil
	} else if cu.AuthResponse, err = auth.answer(cu.AuthResponse); err != nil {
		return out, err
	}
	b.Seq = 0
	r.active.Add(1)
	defer r.active.Add(1)
	if err := send(b, cu.Append(nil, r.Backend.Caps)); err != nil {
		return out, backendErr(err)
	}
	ok, err := auth.run(r.Backend.Caps)
	var se *wire.ServerError
	switch {
	case errors.Is(err, errDenied) && errors.As(err, &se):
		r.Login = login
		out.Kind, out.Err, out.Relayed = KindErr, se, true
		return out, nil
	case err != nil:
		return out, err
	}
	r.Login.Secret = auth.secret
	r.salt, r.plugin = auth.salt, auth.plugin
	b.Release()
	out.Kind, out.OK, out.Held = KindOK, ok, true
	if o.Hold || o.Swallow {
		return out, nil
	}
	told := out
	if err := r.Finish(&told, o); err != nil {
		return out, err
	}
	out.Held, out.Relayed = false, true
	return out, nil
}
