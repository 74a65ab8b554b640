package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/httpapi"
	"cohort/internal/mysqld"
	"cohort/internal/sysvar"
	"cohort/internal/wire"
	"cohort/proxy"
	"cohort/recovery"
	"cohort/sqlparse"
)

// groupAdmin are the privileges of which one is needed to administer the group,
// variablesAdmin those to set a variable for all.
var (
	groupAdmin     = []string{"SUPER", "GROUP_REPLICATION_ADMIN"}
	variablesAdmin = []string{"SUPER", "SYSTEM_VARIABLES_ADMIN"}
)

// weigher changes the member's weight in elections while it runs.
type weigher interface {
	SetWeight(ctx context.Context, weight uint64) error
}

// limiter changes the largest transaction that this member takes.
type limiter interface {
	SetTransactionSizeLimit(bytes int64)
}

// policyHolder is a member whose policy can be changed while it runs.
type policyHolder interface {
	ChangePolicy(change func(*recovery.Policy))
	// Rejoining: it is trying to come back into the group.
	Rejoining() bool
}

// Exec implements proxy.Admin.
func (s *statusSource) Exec(ctx context.Context, who proxy.SessionInfo, st proxy.AdminStatement) (bool, error) {
	switch st.Class {
	case sqlparse.StartGroup, sqlparse.StopGroup:
		if err := mayStartStop(who, st); err != nil {
			return true, err
		}
		if st.Class == sqlparse.StartGroup {
			// A value that is left from the last time would say that it is the group's.
			if list, err := s.value(forceMembers); err == nil && list != "" && !s.member.Wanted() {
				return true, s.startError(fmt.Errorf("%w: group_replication_force_members must be empty, it is '%s'", mysqld.ErrSettings, list))
			}
			return true, s.startError(s.member.Start(ctx))
		}
		return true, s.stopError(s.member.Stop(ctx))
	case sqlparse.Maintenance:
		return s.resetPersisted(who, st)
	}
	return true, s.set(ctx, who, st)
}

// startError is what START GROUP_REPLICATION answers. As with the plugin the log
// says what is wrong.
func (s *statusSource) startError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, recovery.ErrRunning):
		return wire.NewError(3093, "HY000", "The START GROUP_REPLICATION command failed since the group is already running.")
	case errors.Is(err, recovery.ErrBusy):
		return wire.NewError(3663, "HY000", "The START GROUP_REPLICATION command encountered a failure. Another instance of START/STOP GROUP_REPLICATION command is executing.")
	}
	s.log.Error().Err(err).Str("remedy", recovery.Explain(err)).Msg("START GROUP_REPLICATION failed")
	switch {
	case errors.Is(err, consensus.ErrAddress):
		return wire.NewError(3096, "HY000", "The START GROUP_REPLICATION command failed as there was an error when initializing the group communication layer.")
	case errors.Is(err, consensus.ErrNoSeed):
		return wire.NewError(3097, "HY000", "The START GROUP_REPLICATION command failed as there was an error when joining the communication group.")
	case errors.Is(err, consensus.ErrGroupFull):
		return wire.NewError(3191, "HY000", "The START GROUP_REPLICATION command failed since the group already has 9 members.")
	}
	return wire.NewError(3092, "HY000", "The server is not configured properly to be an active member of the group. Please see more details on error log.")
}

func (s *statusSource) stopError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, recovery.ErrBusy):
		return wire.NewError(3663, "HY000", "The STOP GROUP_REPLICATION command encountered a failure. Another instance of START/STOP GROUP_REPLICATION command is executing.")
	}
	s.log.Error().Err(err).Msg("STOP GROUP_REPLICATION failed")
	return wire.NewError(3663, "HY000", "The STOP GROUP_REPLICATION command encountered a failure. %v", err)
}

// mayStartStop makes the checks of START and STOP GROUP_REPLICATION in MySQL's
// order.
func mayStartStop(who proxy.SessionInfo, st proxy.AdminStatement) error {
	if err := need(who, groupAdmin); err != nil {
		return err
	}
	const failed = "The START GROUP_REPLICATION command failed since "
	switch {
	case who.Locked || who.InTransaction:
		return wire.NewError(1192, "HY000", "Can't execute the given command because you have active locked tables or an active transaction")
	case st.User != nil && *st.User == "":
		return wire.NewError(3970, "HY000", failed+"the username provided for recovery channel is empty.")
	case st.Password != nil && st.User == nil:
		return wire.NewError(3971, "HY000", failed+"the USER option was not provided with PASSWORD for recovery channel.")
	case st.Password != nil && len(*st.Password) > 32:
		return wire.NewError(3972, "HY000", failed+"the password provided for the recovery channel exceeds the maximum length of 32 characters.")
	}
	return nil
}

// need refuses a session that has none of the privileges.
func need(who proxy.SessionInfo, privileges []string) error {
	a, err := who.Account()
	if err != nil {
		return err
	}
	if a.Has(privileges...) {
		return nil
	}
	return wire.NewError(1227, "42000", "Access denied; you need (at least one of) the %s privilege(s) for this operation", strings.Join(privileges, " or "))
}

// applier returns what makes a new value count, nil where nothing does.
func (s *statusSource) applier(ctx context.Context, name, text string) func() error {
	if change := policyChange(name, text); change != nil {
		h, ok := s.life.(policyHolder)
		if !ok {
			return nil
		}
		return func() error {
			if name == "group_replication_autorejoin_tries" && h.Rejoining() {
				return wire.NewError(3916, "HY000", "Cannot update the number of auto-rejoin retry attempts when an auto-rejoin process is already running.")
			}
			h.ChangePolicy(change)
			s.remember(name, text)
			return nil
		}
	}
	if name == forceMembers && s.member != nil {
		return func() error { return s.forceMembers(ctx, text) }
	}
	if v, ok := sysvar.Find(name); ok && v.HasSession() && v.HasEffect(text) && s.router != nil {
		return func() error {
			s.router.NeedLease(needsLease(text))
			s.remember(name, text)
			return nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 63)
	switch {
	case err != nil:
	case name == "group_replication_member_weight":
		if w, ok := s.life.(weigher); ok {
			return func() error {
				ctx, cancel := context.WithTimeout(ctx, quorumWait)
				defer cancel()
				switch err := w.SetWeight(ctx, n); {
				case errors.Is(err, recovery.ErrActing):
					return wire.NewError(1231, "42000", "The member weight for primary elections cannot be changed while group configuration operation 'Primary election change' is running initiated by 'SELECT group_replication_set_as_primary()'.")
				case err != nil:
					return fmt.Errorf("set the member's weight: %w", err)
				}
				s.remember(name, text)
				return nil
			}
		}
	case name == "group_replication_recovery_retry_count" && s.donors != nil:
		return func() error {
			s.donors.SetRetryCount(n)
			s.remember(name, text)
			return nil
		}
	case name == "group_replication_recovery_reconnect_interval" && s.donors != nil:
		return func() error {
			s.donors.SetReconnectInterval(time.Duration(n) * time.Second)
			s.remember(name, text)
			return nil
		}
	case name == "group_replication_transaction_size_limit":
		if l, ok := s.life.(limiter); ok {
			return func() error {
				l.SetTransactionSizeLimit(int64(n))
				s.remember(name, text)
				return nil
			}
		}
	}
	return nil
}

// forceMembers is an order, not a setting: the same value is one again.
const forceMembers = "group_replication_force_members"

// forceMembers makes the members of the list the group, or says why not as MySQL
// does. A member that waits to join may do it as well, where MySQL wants one that is
// ONLINE: with the others lost for good it would wait for ever.
func (s *statusSource) forceMembers(ctx context.Context, list string) error {
	failed := func(why string) error {
		return wire.NewError(4118, "HY000", "The 'SET GLOBAL group_replication_force_members=%s' command encountered a failure. %s", list, why)
	}
	self := s.self(s.node.View()).State
	waits := self == state.StateRecovering.String() && s.member.Wanted()
	switch {
	case list == "":
		s.remember(forceMembers, list)
		return nil
	case s.node.Fenced(): // an earlier attempt is to be completed
	case self != httpapi.Online && !waits:
		return failed("Member is not ONLINE, it is not possible to force a new group membership.")
	case s.member.Majority(ctx):
		return failed("The group_replication_force_members can only be updated when Group Replication is running and majority of the members are unreachable.")
	}
	if err := s.node.Force(ctx, strings.Split(list, ",")); err != nil {
		s.log.Error().Err(err).Str("group_replication_force_members", list).
			Msg("the membership was not forced; list the group_replication_local_address of members that can be reached and have no majority, this one among them")
		return failed(fmt.Sprintf("Error setting group_replication_force_members value '%s'. Please check error log for additional details.", list))
	}
	s.remember(forceMembers, list)
	return nil
}

// needsLease says whether reads need one under a consistency level.
func needsLease(consistency string) bool { return consistency != "EVENTUAL" }

// policyChange is what a variable's new value means for the member's policy, nil
// for nothing. text has been checked.
func policyChange(name, text string) func(*recovery.Policy) {
	n, _ := strconv.ParseUint(text, 10, 32)
	seconds := time.Duration(n) * time.Second
	switch name {
	case "group_replication_member_expel_timeout":
		return func(p *recovery.Policy) { p.ExpelTimeout = seconds }
	case "group_replication_unreachable_majority_timeout":
		return func(p *recovery.Policy) { p.MajorityTimeout = seconds }
	case "group_replication_autorejoin_tries":
		return func(p *recovery.Policy) { p.AutorejoinTries = n }
	case "group_replication_exit_state_action":
		return func(p *recovery.Policy) { p.ExitAction = recovery.ExitAction(text) }
	}
	return nil
}

// quorumWait bounds how long a function waits for the proof that this member is
// in the majority.
const quorumWait = 5 * time.Second

// Function implements proxy.Admin.
func (s *statusSource) Function(ctx context.Context, who proxy.SessionInfo, call proxy.GroupCall) (string, bool, error) {
	f, ok := functions[call.Name]
	if !ok {
		return "", false, nil
	}
	if err := f.admissible(who, call.Args); err != nil {
		return "", true, cannotInitialize(call.Name, err.Error())
	}
	online := s.member.Ready()
	if online {
		ctx, cancel := context.WithTimeout(ctx, quorumWait)
		_, err := s.node.ReadIndex(ctx)
		cancel()
		online = err == nil
	}
	result, err := f.run(functionCall{ctx: ctx, view: s.node.View(), self: s.id, online: online, args: call.Args, life: s.life,
		unreachable: s.member.Unreachable, fresh: s.node.View, patience: settleWait})
	if err != nil {
		return "", true, asFunctionError(call.Name, err)
	}
	return result, true, nil
}
