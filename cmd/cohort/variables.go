package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"cohort/internal/config"
	"cohort/internal/persist"
	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/proxy"
)

// persistAdmin is needed for SET PERSIST_ONLY besides one of variablesAdmin.
const persistAdmin = "PERSIST_RO_VARIABLES_ADMIN"

// usePersisted has cfg take what SET PERSIST stored, which overrides all other sources
// as mysqld-auto.cnf does. What this release does not take is left out: the member
// must start for anybody to be able to correct it.
func usePersisted(cfg *config.Config, store *persist.Store, log zerolog.Logger) {
	all := store.All()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		log := log.With().Str("variable", name).Str("value", all[name]).Logger()
		if _, ok := sysvar.Find(name); !ok {
			log.Warn().Msg("there is no such variable any more; what SET PERSIST stored is ignored")
			continue
		}
		if err := cfg.Set(name, all[name], config.FromPersisted); err != nil {
			log.Warn().Err(err).Msg("what SET PERSIST stored is ignored")
			continue
		}
		log.Info().Msg("set by SET PERSIST")
	}
}

// commander may be carrying out a START or STOP.
type commander interface{ Commanded() bool }

// setting is a checked assignment.
type setting struct {
	name, text string
	// apply makes it count, nil for what counts already or is only stored.
	apply   func() error
	persist bool
	session bool // it is the session's alone
	warning string
}

// set checks all assignments before it carries out the first.
func (s *statusSource) set(ctx context.Context, who proxy.SessionInfo, st proxy.AdminStatement) error {
	list := make([]setting, 0, len(st.Set))
	for _, a := range st.Set {
		x, err := s.check(ctx, who, a)
		if err != nil {
			return err
		}
		list = append(list, x)
	}
	stored := make(map[string]string)
	for _, x := range list {
		if x.apply != nil {
			if err := x.apply(); err != nil {
				return err
			}
		}
		if x.session && st.Consistency != nil {
			st.Consistency(x.text)
		}
		if x.persist {
			stored[x.name] = x.text
		}
		if x.warning != "" && st.Warn != nil {
			st.Warn(1292, x.warning)
		}
	}
	if len(stored) == 0 {
		return nil
	}
	return s.persisted.Set(stored)
}

// check makes MySQL's checks of one assignment, in its order.
func (s *statusSource) check(ctx context.Context, who proxy.SessionInfo, a proxy.Assignment) (x setting, err error) {
	v, ok := sysvar.Find(a.Name)
	if !ok {
		return x, wire.NewError(1193, "HY000", "Unknown system variable '%s'", a.Name)
	}
	if err := s.maySet(who, a, v); err != nil {
		return x, err
	}
	x.name, x.persist = a.Name, strings.HasPrefix(a.Scope, "PERSIST")
	if x.persist && !v.Persistent() {
		return x, wire.NewError(1238, "HY000", "Variable '%s' is a non persistent variable", a.Name)
	}
	only := a.Scope == "PERSIST_ONLY"
	if c, ok := s.life.(commander); ok && !only && a.Scope != "SESSION" && c.Commanded() {
		return x, wire.NewError(3724, "HY000", "This option cannot be set while START or STOP GROUP_REPLICATION is ongoing.")
	}
	x.text, err = v.Check(a.Value)
	now, nerr := s.value(a.Name)
	// Nothing to change, and so nothing to promise; but a membership is forced again.
	same := err == nil && nerr == nil && now == x.text && a.Name != forceMembers
	// The plugin looks whether it runs before it looks at a range.
	if fixed := v.Fixed(); fixed != nil && !only && !same && s.inGroup() && (err == nil || !rejectsKind(a.Value)) {
		return x, fixed
	}
	if err != nil {
		return x, err
	}
	if a.Scope == "SESSION" {
		if a.Value.Kind == sysvar.Default && nerr == nil {
			x.text, same = now, true
		}
		if x.session = same || v.HasEffect(x.text); !x.session {
			return x, v.Unchangeable(x.text)
		}
		return x, nil
	}
	x.warning = v.Truncated(a.Value, x.text)
	if only || same {
		return x, nil
	}
	if x.apply = s.applier(ctx, a.Name, x.text); x.apply == nil {
		return x, v.Unchangeable(x.text)
	}
	return x, nil
}

// rejectsKind: the server itself refuses such a value before it asks the plugin.
func rejectsKind(v sysvar.Value) bool { return v.Kind == sysvar.Null || v.Kind == sysvar.Default }

// inGroup: Group Replication runs here, in MySQL's terms.
func (s *statusSource) inGroup() bool { return s.member == nil || s.member.Wanted() }

// maySet checks scope and privileges.
func (s *statusSource) maySet(who proxy.SessionInfo, a proxy.Assignment, v sysvar.Var) error {
	if a.Scope == "SESSION" {
		if !v.HasSession() {
			return wire.NewError(1229, "HY000", "Variable '%s' is a GLOBAL variable and should be set with SET GLOBAL", a.Name)
		}
		return nil
	}
	if err := need(who, variablesAdmin); err != nil {
		return err
	}
	if a.Scope == "PERSIST_ONLY" {
		if err := need(who, []string{"SUPER", persistAdmin}); err != nil {
			return err
		}
	}
	if v.HasSession() {
		return need(who, groupAdmin)
	}
	return nil
}

// resetPersisted is RESET PERSIST of a variable.
func (s *statusSource) resetPersisted(who proxy.SessionInfo, st proxy.AdminStatement) (done bool, err error) {
	if err := need(who, variablesAdmin); err != nil {
		return true, err
	}
	found, err := s.persisted.Remove(st.Reset)
	if err != nil || found {
		return true, err
	}
	e := wire.NewError(3615, "HY000", "Variable %s does not exist in persisted config file", st.Reset)
	if !st.IfExists {
		return true, e
	}
	if st.Warn != nil {
		st.Warn(e.Code, e.Message)
	}
	return true, nil
}

// remember keeps a value that was set while the member runs.
func (s *statusSource) remember(name, text string) { s.changed.Store(name, text) }

// value is a variable's present value.
func (s *statusSource) value(name string) (string, error) {
	if v, ok := s.changed.Load(name); ok {
		return v.(string), nil
	}
	return s.cfg.Get(name)
}

// Variable implements proxy.Admin.
func (s *statusSource) Variable(_ context.Context, _ proxy.SessionInfo, name string) (value string, numeric, ok bool) {
	if !strings.HasPrefix(name, sysvar.Prefix) {
		return "", false, false
	}
	value, err := s.value(name)
	if err != nil {
		return "", false, false
	}
	// MySQL shows its booleans as numbers.
	switch value {
	case "ON":
		return "1", true, true
	case "OFF":
		return "0", true, true
	}
	_, err = strconv.ParseUint(value, 10, 64)
	return value, err == nil, true
}

// Variables implements proxy.Admin.
func (s *statusSource) Variables(context.Context, proxy.SessionInfo) []proxy.NamedValue {
	var list []proxy.NamedValue
	for _, name := range sysvar.Names() {
		if v, err := s.value(name); err == nil {
			list = append(list, proxy.NamedValue{Name: name, Value: v})
		}
	}
	return list
}
