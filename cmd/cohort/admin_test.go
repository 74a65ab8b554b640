package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/config"
	"cohort/internal/persist"
	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/proxy"
	"cohort/recovery"
	"cohort/router"
	"cohort/sqlparse"
)

const (
	uuid1 = "11111111-1111-4111-8111-111111111111"
	uuid2 = "22222222-2222-4222-8222-222222222222"
	uuid3 = "33333333-3333-4333-8333-333333333333"
	uuid4 = "44444444-4444-4444-8444-444444444444"
)

// member 1 is the primary, 2 and 3 are ONLINE, 4 is gone.
func testView() *state.View {
	return &state.View{Founded: true, Primary: 1, Members: []state.Member{
		{ID: 1, State: state.StateOnline, Info: state.MemberInfo{UUID: uuid1, ServerVersion: 90704}},
		{ID: 2, State: state.StateOnline, Info: state.MemberInfo{UUID: uuid2, ServerVersion: 90704}},
		{ID: 3, State: state.StateOnline, Info: state.MemberInfo{UUID: uuid3, ServerVersion: 90704}},
		{ID: 4, State: state.StateOffline, Info: state.MemberInfo{UUID: uuid4, ServerVersion: 90704}},
	}}
}

// switched remembers what it was asked for.
type switched struct {
	uuid string
	wait time.Duration
	err  error
}

func (s *switched) SwitchPrimary(_ context.Context, uuid string) error {
	s.uuid, s.wait = uuid, -1
	return s.err
}

type patiently struct{ *switched }

func (s patiently) SwitchPrimaryWithin(_ context.Context, uuid string, wait time.Duration) error {
	s.uuid, s.wait = uuid, wait
	return s.err
}

func str(s string) sysvar.Value { return sysvar.Value{Kind: sysvar.String, Text: s} }
func num(s string) sysvar.Value { return sysvar.Value{Kind: sysvar.Int, Text: s} }
func text(s string, e error) string {
	if se, ok := errors.AsType[*wire.ServerError](e); ok {
		return fmt.Sprintf("%d %s", se.Code, se.Message)
	}
	if e != nil {
		return e.Error()
	}
	return s
}

func TestSetAsPrimary(t *testing.T) {
	const name = "group_replication_set_as_primary"
	joining := testView()
	joining.Members[2].State = state.StateRecovering
	newer := testView()
	newer.Members[1].Info.ServerVersion = 90705
	electing := testView()
	electing.Epoch = 2
	electing.Members[0].OpenEpoch = 1
	const failed = "3910 The function '" + name + "' failed. "
	for _, c := range []struct {
		what    string
		args    []sysvar.Value
		view    *state.View
		offline bool
		deaf    uint64 // who is not heard
		err     error
		want    string
		asked   string
	}{
		{what: "another member", args: []sysvar.Value{str(uuid2)}, want: "Primary server switched to: " + uuid2, asked: uuid2},
		{what: "the primary", args: []sysvar.Value{str(uuid1)}, want: "The requested member is already the current group primary."},
		{what: "a member that joins", args: []sysvar.Value{str(uuid2)}, view: joining, want: "1123 Can't initialize function '" + name + "'; A member is joining the group, wait for it to be ONLINE."},
		{what: "a member that is not heard", args: []sysvar.Value{str(uuid2)}, deaf: 3, want: "1123 Can't initialize function '" + name + "'; All members in the group must be reachable."},
		{what: "the appointed member left", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", recovery.ErrOvertaken), want: failed + string(errElected), asked: uuid2},
		{what: "another election came first", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", consensus.ErrNotAppointed), want: failed + string(errElecting), asked: uuid2},
		{what: "this member left", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", consensus.ErrNotAdmitted), want: failed + string(errGone), asked: uuid2},
		{what: "a joining member", args: []sysvar.Value{str(uuid3)}, view: joining, want: "1123 Can't initialize function '" + name + "'; A member is joining the group, wait for it to be ONLINE."},
		{what: "a member that is gone", args: []sysvar.Value{str(uuid4)}, want: "1123 Can't initialize function '" + name + "'; The requested uuid is not a member of the group."},
		{what: "not ONLINE", args: []sysvar.Value{str("x")}, offline: true, want: "1123 Can't initialize function '" + name + "'; Member must be ONLINE and in the majority partition."},
		{what: "a higher version", args: []sysvar.Value{str(uuid2)}, view: newer, want: "3910 The function '" + name + "' failed. Error processing configuration start message: The appointed primary member is not the lowest version in the group."},
		{what: "a failure", args: []sysvar.Value{str(uuid2)}, err: errors.New("It broke."), want: "3910 The function '" + name + "' failed. It broke.", asked: uuid2},
		{what: "a MySQL error", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", wire.NewError(1317, "70100", "Query execution was interrupted")), want: "1317 Query execution was interrupted", asked: uuid2},
		{what: "another change", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", recovery.ErrSwitching),
			want: failed + "There is already a configuration action being executed. Wait for it to finish.", asked: uuid2},
		{what: "the member goes away", args: []sysvar.Value{str(uuid2)}, err: fmt.Errorf("wrapped: %w", recovery.ErrTarget),
			want: failed + "Primary assigned for election left the group, this operation will be aborted. No primary election was invoked under this operation.", asked: uuid2},
		{what: "no primary yet", args: []sysvar.Value{str(uuid2)}, view: electing,
			want: failed + "A primary election is occurring in the group. Wait for it to end."},
		{what: "a bad timeout", args: []sysvar.Value{str(uuid2), num("-1")}, want: "3910 The function '" + name + "' failed. Valid range for running_transactions_timeout is 0 to 3600."},
	} {
		if c.view == nil {
			c.view = testView()
		}
		s := &switched{err: c.err}
		got, err := functions[name].run(functionCall{ctx: t.Context(), view: c.view, self: 2, online: !c.offline, args: c.args, life: s,
			unreachable: func(m state.Member) bool { return m.ID == c.deaf }})
		if err != nil {
			err = asFunctionError(name, err)
		}
		if text(got, err) != c.want || s.uuid != c.asked {
			t.Errorf("%s: asked for %q, got %s\nwant %s", c.what, s.uuid, text(got, err), c.want)
		}
	}
	s := &switched{}
	call := functionCall{ctx: t.Context(), view: testView(), self: 1, online: true, args: []sysvar.Value{str(uuid2), num("7")}, life: patiently{s}}
	if _, err := setAsPrimary(call); err != nil || s.wait != 7*time.Second {
		t.Errorf("with a timeout: waited %v (%v)", s.wait, err)
	}
	call.args = call.args[:1]
	if _, err := setAsPrimary(call); err != nil || s.wait != -1 {
		t.Errorf("without a timeout: waited %v (%v)", s.wait, err)
	}
	call.life = nil
	if _, err := setAsPrimary(call); err == nil {
		t.Error("a member that cannot switch did")
	}
}

// who is a session whose SHOW GRANTS says privileges.
func who(privileges string) proxy.SessionInfo {
	return proxy.SessionInfo{Account: func() (proxy.Account, error) {
		return proxy.NewAccount("u@h%", []string{"GRANT " + privileges + " ON *.* TO `u`@`h%`"}), nil
	}}
}

func TestFunctionAdmission(t *testing.T) {
	f := functions["group_replication_set_as_primary"]
	locked, busy := who("SUPER"), who("SUPER")
	locked.Locked, busy.InTransaction = true, true
	for _, c := range []struct {
		who  proxy.SessionInfo
		args []sysvar.Value
		want string
	}{
		{who("SUPER"), []sysvar.Value{str(uuid1)}, ""},
		{who("GROUP_REPLICATION_ADMIN"), []sysvar.Value{str(uuid1)}, ""},
		{who("SELECT"), []sysvar.Value{str(uuid1)}, "User 'u'@'h%' needs SUPER or GROUP_REPLICATION_ADMIN privileges."},
		{who("SELECT"), nil, "Wrong arguments: You need to specify a server uuid."},
		{locked, nil, "Can't execute the given operation because you have active locked tables."},
		{busy, []sysvar.Value{str(uuid1)}, "Can't execute the given operation because you have an active transaction."},
	} {
		if got := text("", f.admissible(c.who, c.args)); got != c.want {
			t.Errorf("%v: %s\nwant %s", c.args, got, c.want)
		}
	}
}

// weighed takes weights.
type weighed struct{ weights []uint64 }

func (w *weighed) SetWeight(_ context.Context, n uint64) error {
	w.weights = append(w.weights, n)
	return nil
}

// held is a policyHolder.
type held struct {
	policy    recovery.Policy
	rejoining bool
	commanded bool // START or STOP is being carried out
}

func (h *held) Commanded() bool { return h.commanded }

func (h *held) Rejoining() bool { return h.rejoining }

func (h *held) ChangePolicy(change func(*recovery.Policy)) { change(&h.policy) }

// What START and STOP answer when they fail; that they do is recovery's.
func TestStartStopErrors(t *testing.T) {
	s := &statusSource{log: zerolog.Nop()}
	broken := errors.New("it broke")
	busy := fmt.Errorf("wrapped: %w", recovery.ErrBusy)
	for _, c := range []struct {
		err  error
		want uint16
	}{
		{s.startError(nil), 0}, {s.startError(recovery.ErrRunning), 3093}, {s.startError(busy), 3663}, {s.startError(broken), 3092},
		{s.startError(context.DeadlineExceeded), 3092},
		{s.stopError(nil), 0}, {s.stopError(busy), 3663}, {s.stopError(broken), 3663},
	} {
		if wire.ErrorCode(c.err) != c.want || (c.err == nil) != (c.want == 0) {
			t.Errorf("%v, want %d", c.err, c.want)
		}
	}
}

func TestSetVariables(t *testing.T) {
	w := &weighed{}
	s := &statusSource{cfg: config.Default(), life: w}
	set := func(privileges string, list ...proxy.Assignment) string {
		_, err := s.Exec(t.Context(), who(privileges), proxy.AdminStatement{Class: sqlparse.Set, Set: list})
		return text("", err)
	}
	weight := func(scope, n string) proxy.Assignment {
		return proxy.Assignment{Scope: scope, Name: "group_replication_member_weight", Value: num(n)}
	}
	period := proxy.Assignment{Scope: "GLOBAL", Name: "group_replication_flow_control_period", Value: num("7")}
	const denied = "1227 Access denied; you need (at least one of) the SUPER or "
	for _, c := range []struct {
		privileges string
		list       []proxy.Assignment
		want       string
	}{
		{"SYSTEM_VARIABLES_ADMIN", []proxy.Assignment{weight("GLOBAL", "70")}, ""},
		{"GROUP_REPLICATION_ADMIN", []proxy.Assignment{weight("GLOBAL", "71")}, denied + "SYSTEM_VARIABLES_ADMIN privilege(s) for this operation"},
		{"SUPER", []proxy.Assignment{weight("SESSION", "71")}, "1229 Variable 'group_replication_member_weight' is a GLOBAL variable and should be set with SET GLOBAL"},
		// All or nothing.
		{"SUPER", []proxy.Assignment{weight("GLOBAL", "71"), period}, "1235 This version of MySQL doesn't yet support 'SET of group_replication_flow_control_period: it has no effect before there is: flow control'"},
		{"SUPER", []proxy.Assignment{{Scope: "SESSION", Name: "group_replication_consistency", Value: str("before_on_primary_failover")}}, ""},
		{"SYSTEM_VARIABLES_ADMIN", []proxy.Assignment{{Scope: "GLOBAL", Name: "group_replication_consistency", Value: str("AFTER")}}, denied + "GROUP_REPLICATION_ADMIN privilege(s) for this operation"},
		{"SUPER", []proxy.Assignment{{Scope: "SESSION", Name: "group_replication_consistency", Value: str("AFTER")}}, "1235 This version of MySQL doesn't yet support 'SET of group_replication_consistency: it has no effect before there is: consistency levels'"},
	} {
		if got := set(c.privileges, c.list...); got != c.want {
			t.Errorf("%+v as %s\n got %s\nwant %s", c.list, c.privileges, got, c.want)
		}
	}
	if fmt.Sprint(w.weights) != "[70]" {
		t.Errorf("weights %v", w.weights)
	}
	if v, numeric, ok := s.Variable(t.Context(), proxy.SessionInfo{}, "group_replication_member_weight"); v != "70" || !numeric || !ok {
		t.Errorf("the variable is %q", v)
	}
	h := &held{}
	s.life = h
	for name, v := range map[string]sysvar.Value{"member_expel_timeout": num("7"), "unreachable_majority_timeout": num("8"),
		"autorejoin_tries": num("9"), "exit_state_action": str("read_only")} {
		if got := set("SUPER", proxy.Assignment{Scope: "GLOBAL", Name: "group_replication_" + name, Value: v}); got != "" {
			t.Error(got)
		}
	}
	if want := (recovery.Policy{ExpelTimeout: 7 * time.Second, MajorityTimeout: 8 * time.Second, AutorejoinTries: 9, ExitAction: recovery.ExitReadOnly}); h.policy != want {
		t.Errorf("%+v", h.policy)
	}
	h.rejoining = true
	if got := set("SUPER", proxy.Assignment{Scope: "GLOBAL", Name: "group_replication_autorejoin_tries", Value: num("1")}); !strings.HasPrefix(got, "3916 ") {
		t.Error(got)
	}
	h.commanded = true
	expel := proxy.Assignment{Scope: "GLOBAL", Name: "group_replication_member_expel_timeout", Value: num("9")}
	if got := set("SUPER", expel); got != "3724 This option cannot be set while START or STOP GROUP_REPLICATION is ongoing." || h.policy.ExpelTimeout != 7*time.Second {
		t.Errorf("%s, %+v", got, h.policy)
	}
	s.life = nil
	if got := set("SUPER", weight("GLOBAL", "71")); got == "" {
		t.Error("a weight that nobody takes was set")
	}
}

// A session's consistency level is its own: nothing changes for others, and no privilege
// is needed.
func TestSetSessionConsistency(t *testing.T) {
	rt := router.New(router.Options{Log: &router.NodeRef{}, Logger: zerolog.Nop()})
	defer rt.Close()
	s := &statusSource{cfg: config.Default(), router: rt}
	const name = "group_replication_consistency"
	for _, c := range []struct {
		privileges, scope string
		value             sysvar.Value
		session, global   string
		fails             bool
	}{
		{"", "SESSION", str("eventual"), "EVENTUAL", "BEFORE_ON_PRIMARY_FAILOVER", false},
		{"", "SESSION", num("1"), "BEFORE_ON_PRIMARY_FAILOVER", "BEFORE_ON_PRIMARY_FAILOVER", false},
		{"", "SESSION", str("BEFORE"), "", "BEFORE_ON_PRIMARY_FAILOVER", true},
		{"", "GLOBAL", str("EVENTUAL"), "", "BEFORE_ON_PRIMARY_FAILOVER", true},
		{"SUPER", "GLOBAL", str("AFTER"), "", "BEFORE_ON_PRIMARY_FAILOVER", true},
		{"SUPER", "GLOBAL", str("EVENTUAL"), "", "EVENTUAL", false},
		{"", "SESSION", sysvar.Value{Kind: sysvar.Default}, "EVENTUAL", "EVENTUAL", false},
	} {
		session := ""
		_, err := s.Exec(t.Context(), who(c.privileges), proxy.AdminStatement{Class: sqlparse.Set, Consistency: func(level string) { session = level },
			Set: []proxy.Assignment{{Scope: c.scope, Name: name, Value: c.value}}})
		global, _, _ := s.Variable(t.Context(), proxy.SessionInfo{}, name)
		if (err != nil) != c.fails || session != c.session || global != c.global || rt.Leased() != (c.global == "EVENTUAL") {
			t.Errorf("%+v: %v, session %s, global %s, reads need no lease: %t", c, err, session, global, rt.Leased())
		}
	}
}

// SET PERSIST stores what counts, SET PERSIST_ONLY what will at the next start.
func TestPersist(t *testing.T) {
	dir := t.TempDir()
	store, err := persist.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &weighed{}
	s := &statusSource{cfg: config.Default(), life: w, persisted: store}
	var warnings []string
	exec := func(privileges string, st proxy.AdminStatement) string {
		st.Warn = func(code uint16, message string) { warnings = append(warnings, fmt.Sprint(code, " ", message)) }
		_, err := s.Exec(t.Context(), who(privileges), st)
		return text("", err)
	}
	set := func(scope, name string, v sysvar.Value) proxy.AdminStatement {
		return proxy.AdminStatement{Class: sqlparse.Set, Set: []proxy.Assignment{{Scope: scope, Name: "group_replication_" + name, Value: v}}}
	}
	reset := func(name string, ifExists bool) proxy.AdminStatement {
		return proxy.AdminStatement{Class: sqlparse.Maintenance, Reset: name, IfExists: ifExists}
	}
	const missing = "3615 Variable group_replication_member_weight does not exist in persisted config file"
	for _, c := range []struct {
		st         proxy.AdminStatement
		privileges string
		want       string
	}{
		{set("PERSIST", "member_weight", num("70")), "SYSTEM_VARIABLES_ADMIN", ""},
		{set("PERSIST_ONLY", "member_weight", num("80")), "SYSTEM_VARIABLES_ADMIN", "1227 Access denied; you need (at least one of) the SUPER or PERSIST_RO_VARIABLES_ADMIN privilege(s) for this operation"},
		{set("PERSIST_ONLY", "group_name", str(uuid1)), "SUPER", ""},
		{set("PERSIST", "group_name", str(uuid1)), "SUPER", "3093 The group_replication_group_name cannot be changed when Group Replication is running"},
		{set("PERSIST_ONLY", "flow_control_period", num("61")), "SUPER", ""},
		{set("PERSIST", "force_members", str("")), "SUPER", "1238 Variable 'group_replication_force_members' is a non persistent variable"},
		{set("PERSIST", "member_weight", str("x")), "SUPER", "1232 Incorrect argument type to variable 'group_replication_member_weight'"},
	} {
		if got := exec(c.privileges, c.st); got != c.want {
			t.Errorf("%+v\n got %s\nwant %s", c.st.Set, got, c.want)
		}
	}
	if want := []string{"1292 Truncated incorrect group_replication_flow_control_period value: '61'"}; !slices.Equal(warnings, want) {
		t.Errorf("warnings %q", warnings)
	}
	if fmt.Sprint(w.weights) != "[70]" {
		t.Errorf("weights %v", w.weights)
	}
	// The next start.
	if store, err = persist.Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := store.Set(map[string]string{"group_replication_nosuch": "1", "group_replication_autorejoin_tries": "many"}); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	usePersisted(cfg, store, zerolog.Nop())
	if cfg.MemberWeight != 70 || cfg.GroupName != uuid1 || cfg.AutorejoinTries != 3 || cfg.OriginOf("group_replication_member_weight") != config.FromPersisted {
		t.Errorf("weight %d, group %s, tries %d", cfg.MemberWeight, cfg.GroupName, cfg.AutorejoinTries)
	}
	s.persisted = store
	if got := exec("SUPER", reset("group_replication_member_weight", false)); got != "" {
		t.Error(got)
	}
	if got := exec("SUPER", reset("group_replication_member_weight", false)); got != missing {
		t.Error(got)
	}
	if got := exec("SUPER", reset("group_replication_member_weight", true)); got != "" || warnings[len(warnings)-1] != missing {
		t.Errorf("%s, %q", got, warnings)
	}
	if got := exec("SELECT", reset("group_replication_member_weight", false)); !strings.HasPrefix(got, "1227 ") {
		t.Error(got)
	}
}

func TestMemberActions(t *testing.T) {
	call := functionCall{ctx: t.Context(), view: testView(), self: 1, online: true}
	call.view.Members[0].Info.MysqldVersion = "9.7.4-2"
	for _, c := range []struct {
		self   uint64
		online bool
		f      string
		args   []sysvar.Value
		want   string
	}{
		{1, true, "enable_member_action", []sysvar.Value{str(theAction), str(theEvent)}, "OK"},
		{1, true, "disable_member_action", []sysvar.Value{str(theAction), str(theEvent)}, "3910 … A primary of cohort members always takes writes: this action cannot be disabled."},
		{1, true, "enable_member_action", []sysvar.Value{str("x"), str(theEvent)}, "3910 … The action does not exist for this event."},
		{1, true, "enable_member_action", []sysvar.Value{str("x"), str("y")}, "3910 … Invalid event name."},
		{1, false, "enable_member_action", []sysvar.Value{str("x"), str("y")}, "3910 … Member must be the primary or OFFLINE."},
		{2, true, "enable_member_action", []sysvar.Value{str("x"), str("y")}, "1123 … Server must have super_read_only=0."},
		{1, true, "reset_member_actions", nil, "3910 … Member must be OFFLINE to reset its member actions configuration."},
		{1, true, "set_communication_protocol", []sysvar.Value{str("8.0")}, "1123 … '8.0' is not version string argument with format major.minor.patch"},
		{1, true, "set_communication_protocol", []sysvar.Value{str("9.10.0")}, "1123 … 9.10.0 is not between 5.7.14 and 9.7.4"},
		{1, true, "set_communication_protocol", []sysvar.Value{str("9.7.4")}, "3910 … A group of cohort members has no communication protocol of the plugin's."},
	} {
		name := "group_replication_" + c.f
		call.self, call.online, call.args = c.self, c.online, c.args
		got, err := functions[name].run(call)
		if err != nil {
			err = asFunctionError(name, err)
		}
		said := strings.NewReplacer("The function '"+name+"' failed.", "…", "Can't initialize function '"+name+"';", "…").Replace(text(got, err))
		if said != c.want {
			t.Errorf("%s(%v)\n got %s\nwant %s", c.f, c.args, said, c.want)
		}
	}
}

func TestStagesTable(t *testing.T) {
	if _, ok := stagesTable(nil, time.Now()); ok {
		t.Error("there is something to show of nothing")
	}
	now := time.Unix(100, 0)
	x, ok := stagesTable([]recovery.Stage{{Name: "Undergoing auto-rejoin procedure", Completed: 1, Estimated: 3, Since: now.Add(-2 * time.Millisecond)}}, now)
	if !ok || !x.Beside || len(x.Rows) != 1 || len(x.Rows[0]) != len(x.Columns) {
		t.Fatalf("%+v", x)
	}
	var got []string
	for _, v := range x.Rows[0] {
		if v == nil {
			got = append(got, "NULL")
		} else {
			got = append(got, *v)
		}
	}
	if want := "0 1 NULL stage/group_rpl/Undergoing auto-rejoin procedure NULL NULL NULL 2000000000 1 3 NULL NULL"; strings.Join(got, " ") != want {
		t.Errorf("%v", got)
	}
}
