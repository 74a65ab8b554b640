package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/config"
	"cohort/internal/pause"
	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/proxy"
	"cohort/recovery"
)

// switcher appoints another primary and returns once it takes writes.
type switcher interface {
	SwitchPrimary(ctx context.Context, uuid string) error
}

// patientSwitcher is a switcher that waits for running transactions, but no
// longer than wait.
type patientSwitcher interface {
	SwitchPrimaryWithin(ctx context.Context, uuid string, wait time.Duration) error
}

// functionCall is what a function may look at.
type functionCall struct {
	ctx    context.Context
	view   *state.View
	self   uint64
	online bool // this member is ONLINE and in the majority
	args   []sysvar.Value
	life   any
	// unreachable says whether this member does not hear another one; nil: it hears all.
	unreachable func(state.Member) bool
	// fresh is the view as it is now, and patience how long to wait for all members to
	// be there; nil and 0: not at all.
	fresh    func() *state.View
	patience time.Duration
}

// settleWait is how long a change of the primary waits for all members to be ONLINE and
// heard of, where MySQL refuses at once: here a former primary joins anew.
const settleWait = 5 * time.Second

// groupFunction is one of the plugin's functions. Its checks are in the order of
// the plugin's.
type groupFunction struct {
	// lockable: it may run in a LOCK TABLES section; open: it needs no privilege.
	lockable, open bool
	// check looks at the arguments.
	check func(args []sysvar.Value) error
	run   func(functionCall) (string, error)
}

// errInit marks what the plugin finds out before it runs a function, error 1123;
// all else is 3910.
type errInit string

func (e errInit) Error() string { return string(e) }

// errRun is a text of MySQL's for what fails later.
type errRun string

func (e errRun) Error() string { return string(e) }

const (
	errNotOnline = errInit("Member must be ONLINE and in the majority partition.")
	errNotMember = errInit("The requested uuid is not a member of the group.")
	errJoining   = errInit("A member is joining the group, wait for it to be ONLINE.")
	errNoUUID    = errInit("Wrong arguments: You need to specify a server uuid.")
	errBadUUID   = errInit("Wrong arguments: The server uuid is not valid.")
	errReach     = errInit("All members in the group must be reachable.")
	errEither    = errInit("Wrong arguments: This function either takes no arguments or a single server uuid.")

	errActing   = errRun("There is already a configuration action being executed. Wait for it to finish.")
	errElecting = errRun("A primary election is occurring in the group. Wait for it to end.")
	errGone     = errRun("Member has left the group. This operation was locally aborted and for that reason terminated.")
	errElected  = errRun("The appointed primary for election left the group, this operation will be aborted and if present the old primary member will be re-elected. Check the group member list to see who is the primary.")
	errLeft     = errRun("Primary assigned for election left the group, this operation will be aborted. No primary election was invoked under this operation.")
)

var functions = map[string]groupFunction{
	"group_replication_set_as_primary":                {check: checkSetAsPrimary, run: setAsPrimary},
	"group_replication_switch_to_single_primary_mode": {check: checkSinglePrimary, run: switchToSinglePrimary},
	"group_replication_switch_to_multi_primary_mode": {check: noArguments("Wrong arguments: This function takes no arguments."),
		run: unsupported("Multi-primary mode is not supported by this release.")},
	"group_replication_get_write_concurrency": {open: true, check: noArguments("UDF does not take arguments."),
		run: unsupported("A group of cohort members has no write concurrency to show: its ordered log is not XCom.")},
	"group_replication_set_write_concurrency": {check: one(sysvar.Int, "UDF takes one integer argument."), run: setWriteConcurrency},
	"group_replication_get_communication_protocol": {open: true, check: noArguments("UDF does not take arguments."),
		run: unsupported("A group of cohort members has no communication protocol of the plugin's.")},
	"group_replication_set_communication_protocol": {check: one(sysvar.String, "UDF takes one version string argument with format major.minor.patch"), run: setProtocol},
	"group_replication_enable_member_action":       {lockable: true, check: checkAction, run: enableAction},
	"group_replication_disable_member_action":      {lockable: true, check: checkAction, run: disableAction},
	"group_replication_reset_member_actions":       {check: noArguments("UDF takes 0 arguments."), run: resetActions},
}

// admissible makes the checks that need nothing of the group.
func (f groupFunction) admissible(who proxy.SessionInfo, args []sysvar.Value) error {
	if who.Locked && !f.lockable {
		return errInit("Can't execute the given operation because you have active locked tables.")
	}
	if err := f.check(args); err != nil {
		return err
	}
	if f.open {
		return nil
	}
	a, err := who.Account()
	if err != nil {
		return err
	}
	if !a.Has(groupAdmin...) {
		i := strings.LastIndexByte(a.Name, '@')
		return errInit(fmt.Sprintf("User '%s'@'%s' needs SUPER or GROUP_REPLICATION_ADMIN privileges.", a.Name[:max(i, 0)], a.Name[i+1:]))
	}
	if who.InTransaction {
		// It would wait for itself.
		return errInit("Can't execute the given operation because you have an active transaction.")
	}
	return nil
}

func cannotInitialize(name, why string) error {
	return wire.NewError(1123, "HY000", "Can't initialize function '%s'; %s", name, why)
}

// asFunctionError is how a client sees why a function failed.
func asFunctionError(name string, err error) error {
	if e, ok := errors.AsType[*wire.ServerError](err); ok {
		return e
	}
	if e, ok := errors.AsType[errInit](err); ok {
		return cannotInitialize(name, string(e))
	}
	return wire.NewError(3910, "HY000", "The function '%s' failed. %s", name, err)
}

func noArguments(text string) func([]sysvar.Value) error {
	return func(args []sysvar.Value) error {
		if len(args) > 0 {
			return errInit(text)
		}
		return nil
	}
}

func one(kind sysvar.Kind, text string) func([]sysvar.Value) error {
	return func(args []sysvar.Value) error {
		if len(args) != 1 || args[0].Kind != kind {
			return errInit(text)
		}
		return nil
	}
}

func checkAction(args []sysvar.Value) error {
	if len(args) != 2 {
		return errInit("UDF takes 2 arguments.")
	}
	for i, which := range []string{"first", "second"} {
		if args[i].Kind != sysvar.String || args[i].Text == "" {
			return errInit("UDF " + which + " argument must be a string.")
		}
	}
	return nil
}

// unsupported is a function that has no meaning here.
func unsupported(why string) func(functionCall) (string, error) {
	return func(c functionCall) (string, error) {
		if !c.online {
			return "", errNotOnline
		}
		return "", errors.New(why)
	}
}

func setWriteConcurrency(c functionCall) (string, error) {
	if n, err := strconv.Atoi(c.args[0].Text); c.online && (err != nil || n < 10 || n > 200) {
		return "", errInit("Argument must be between 10 and 200.")
	}
	return unsupported("A group of cohort members has no write concurrency to set: its ordered log is not XCom.")(c)
}

func checkSetAsPrimary(args []sysvar.Value) error {
	switch {
	case len(args) > 2:
		return errInit("Wrong arguments: UDF accepts maximum of 2 parameters.")
	case len(args) == 0:
		return errNoUUID
	}
	if args[0].Kind != sysvar.String || args[0].Text == "" {
		return errNoUUID
	}
	if len(args) == 2 && args[1].Kind != sysvar.Int {
		return errInit("Wrong arguments: Second parameter `running_transactions_timeout` must be type integer between 0 - 3600 (seconds).")
	}
	return nil
}

// longestWait is the largest running_transactions_timeout.
const longestWait = 3600

func setAsPrimary(c functionCall) (string, error) {
	m, err := c.appointed(c.args[0].Text)
	if err != nil {
		return "", err
	}
	if m, err = c.settled(m); err != nil {
		return "", err
	}
	wait := -1
	if len(c.args) == 2 {
		if wait, err = strconv.Atoi(c.args[1].Text); err != nil || wait < 0 || wait > longestWait {
			return "", errRun("Valid range for running_transactions_timeout is 0 to 3600.")
		}
	}
	if m.ID == c.view.Primary {
		return "The requested member is already the current group primary.", nil
	}
	if err := c.lowestVersion(m); err != nil {
		return "", err
	}
	if p, ok := c.view.Member(c.view.Primary); ok && p.OpenEpoch != c.view.Epoch {
		return "", errElecting
	}
	p, patient := c.life.(patientSwitcher)
	s, able := c.life.(switcher)
	switch {
	case patient && wait >= 0:
		err = p.SwitchPrimaryWithin(c.ctx, m.Info.UUID, time.Duration(wait)*time.Second)
	case able:
		err = s.SwitchPrimary(c.ctx, m.Info.UUID)
	default:
		err = errors.New("this release cannot change the primary")
	}
	switch {
	case errors.Is(err, recovery.ErrSwitching):
		return "", errActing
	case errors.Is(err, recovery.ErrTarget):
		return "", errLeft
	case errors.Is(err, recovery.ErrOvertaken):
		return "", errElected
	case errors.Is(err, consensus.ErrNotAppointed):
		return "", errElecting
	case errors.Is(err, consensus.ErrNotAdmitted), errors.Is(err, consensus.ErrClosed):
		return "", errGone
	case err != nil:
		return "", err
	}
	return "Primary server switched to: " + m.Info.UUID, nil
}

// appointed finds the member that shall become the primary.
func (c functionCall) appointed(uuid string) (state.Member, error) {
	switch {
	case !c.online:
		return state.Member{}, errNotOnline
	case !config.ValidUUID(uuid):
		return state.Member{}, errBadUUID
	}
	m, ok := c.view.MemberByUUID(strings.ToLower(uuid))
	if !ok || m.State == state.StateOffline || m.State == state.StateError {
		return m, errNotMember
	}
	return m, nil
}

// settled waits for a moment for all members to be ONLINE and heard of, and returns
// what is known of m then.
func (c *functionCall) settled(m state.Member) (state.Member, error) {
	for end := time.Now().Add(c.patience); ; {
		err := c.unsettled()
		if err == nil || c.fresh == nil || time.Now().After(end) {
			return m, err
		}
		if err := pause.For(c.ctx, 50*time.Millisecond); err != nil {
			return m, err
		}
		c.view = c.fresh()
		if m, err = c.appointed(m.Info.UUID); err != nil {
			return m, err
		}
	}
}

func (c *functionCall) unsettled() error {
	joining := false
	for _, m := range c.view.Members {
		if c.unreachable != nil && m.ID != c.self && c.unreachable(m) {
			return errReach
		}
		joining = joining || m.State == state.StateRecovering
	}
	if joining {
		return errJoining
	}
	return nil
}

// lowestVersion refuses a primary whose transactions a member of a lower version
// might not be able to apply.
func (c functionCall) lowestVersion(m state.Member) error {
	if slices.ContainsFunc(c.view.Members, func(o state.Member) bool {
		return o.State == state.StateOnline && o.Info.ServerVersion < m.Info.ServerVersion
	}) {
		return errRun("Error processing configuration start message: The appointed primary member is not the lowest version in the group.")
	}
	return nil
}

func checkSinglePrimary(args []sysvar.Value) error {
	if len(args) > 1 || len(args) == 1 && (args[0].Kind != sysvar.String || args[0].Text == "") {
		return errEither
	}
	return nil
}

func switchToSinglePrimary(c functionCall) (string, error) {
	if len(c.args) == 0 {
		if !c.online {
			return "", errNotOnline
		}
		return "The group is already on single-primary mode.", nil
	}
	m, err := c.appointed(c.args[0].Text)
	if err != nil {
		return "", err
	}
	if _, err := c.settled(m); err != nil {
		return "", err
	}
	return "Already in single-primary mode. Did you mean to use group_replication_set_as_primary?", nil
}
