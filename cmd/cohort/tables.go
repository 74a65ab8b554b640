package main

import (
	"context"
	"strconv"

	"cohort/consensus/state"
	"cohort/internal/httpapi"
	"cohort/proxy"
)

// applierChannel is what MySQL shows as the channel of a group's members.
const applierChannel = "group_replication_applier"

// Table implements proxy.Admin.
func (s *statusSource) Table(_ context.Context, _ proxy.SessionInfo, name string) (proxy.Table, bool) {
	switch name {
	case "replication_group_members":
		v := s.node.View()
		return membersTable(v, s.self(v), s.member.Unreachable), true
	case "replication_group_member_stats":
		return s.statsTable(s.node.View()), true
	}
	return proxy.Table{}, false
}

// membersTable is performance_schema.replication_group_members: the members that
// are in the group, or this one alone while it is not, or not any more.
func membersTable(v *state.View, self httpapi.Self, unreachable func(state.Member) bool) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "MEMBER_HOST", CastType: "CHAR(255)"}, {Name: "MEMBER_PORT", CastType: "SIGNED"},
		{Name: "MEMBER_STATE", CastType: "CHAR(64)"}, {Name: "MEMBER_ROLE", CastType: "CHAR(64)"},
		{Name: "MEMBER_VERSION", CastType: "CHAR(64)"}, {Name: "MEMBER_COMMUNICATION_STACK", CastType: "CHAR(64)"},
	}}
	if self.State == state.StateOffline.String() {
		t.Rows = append(t.Rows, texts("", self.MemberID, self.Host, strconv.Itoa(self.Port), self.State, "", "", "COHORT"))
		return t
	}
	if self.State == state.StateError.String() {
		me, _ := v.MemberByUUID(self.MemberID)
		t.Rows = append(t.Rows, texts(applierChannel, self.MemberID, self.Host, strconv.Itoa(self.Port), self.State, "", me.Info.MysqldVersion, "COHORT"))
		return t
	}
	for _, m := range v.Members {
		if !shown(&m, self.MemberID) {
			continue
		}
		x := member(m, v.Primary, unreachable)
		if x.MemberID == self.MemberID {
			x.State, x.Role = self.State, self.Role // it knows more of itself
		}
		t.Rows = append(t.Rows, texts(applierChannel, x.MemberID, x.Host, strconv.Itoa(x.Port), x.State, x.Role, x.Version, "COHORT"))
	}
	return t
}

// shown reports whether a member is one of the group's, as the others show it.
// One that was taken out shows itself.
func shown(m *state.Member, self string) bool {
	return m.State != state.StateOffline && (m.Replica != 0 || m.Info.UUID == self)
}

// statsTable is performance_schema.replication_group_member_stats. Counts are
// those since this process began, as MySQL's are since START GROUP_REPLICATION.
// Nothing waits for certification, since that is part of ordering; how many rows
// the certifier knows is not told.
func (s *statusSource) statsTable(v *state.View) proxy.Table {
	t := proxy.Table{Columns: []proxy.TableColumn{
		{Name: "CHANNEL_NAME", CastType: "CHAR(64)"}, {Name: "VIEW_ID", CastType: "CHAR(60)"}, {Name: "MEMBER_ID", CastType: "CHAR(36)"},
		{Name: "COUNT_TRANSACTIONS_IN_QUEUE", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_CHECKED", CastType: "UNSIGNED"},
		{Name: "COUNT_CONFLICTS_DETECTED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_ROWS_VALIDATING", CastType: "UNSIGNED"},
		{Name: "TRANSACTIONS_COMMITTED_ALL_MEMBERS", CastType: "CHAR(255)"},
		{Name: "LAST_CONFLICT_FREE_TRANSACTION", CastType: "CHAR(255)"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_REMOTE_APPLIED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_LOCAL_PROPOSED", CastType: "UNSIGNED"},
		{Name: "COUNT_TRANSACTIONS_LOCAL_ROLLBACK", CastType: "UNSIGNED"},
	}}
	last := s.node.LastN()
	all := last
	for _, m := range v.Members {
		if !shown(&m, s.info.UUID) {
			continue
		}
		all = min(all, m.Applied)
	}
	checked, conflicts := s.stats.Checked()
	for _, m := range v.Members {
		if !shown(&m, s.info.UUID) {
			continue
		}
		c := s.stats.Of(m.ID, s.router.Tracker(m.ID).Low())
		t.Rows = append(t.Rows, texts(applierChannel, v.ViewID(), m.Info.UUID, "0", number(checked), number(conflicts), "0",
			s.gtids(all), s.last(last), number(c.RemoteQueued), number(c.RemoteApplied), number(c.Proposed), number(c.RolledBack)))
	}
	return t
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func (s *statusSource) gtids(upto uint64) string {
	switch upto {
	case 0:
		return ""
	case 1:
		return s.cfg.GroupName + ":1"
	}
	return s.cfg.GroupName + ":1-" + strconv.FormatUint(upto, 10)
}

func (s *statusSource) last(n uint64) string {
	if n == 0 {
		return ""
	}
	return s.cfg.GroupName + ":" + strconv.FormatUint(n, 10)
}

func texts(values ...string) []*string {
	row := make([]*string, len(values))
	for i := range values {
		row[i] = &values[i]
	}
	return row
}
