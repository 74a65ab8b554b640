package main

import (
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/config"
	"cohort/internal/groupstats"
	"cohort/internal/httpapi"
	"cohort/internal/persist"
	"cohort/recovery"
	"cohort/router"
)

// statusSource answers what the member knows of the group and of itself.
type statusSource struct {
	cfg    *config.Config
	info   state.MemberInfo
	id     uint64 // this member's
	node   *consensus.Node
	router *router.Router
	member *recovery.Member
	donors *recovery.Donors
	stats  *groupstats.Counter
	// life is member, for what it may or may not be able to do.
	life any
	log  zerolog.Logger
	// persisted is what SET PERSIST stores.
	persisted *persist.Store
	// changed holds the variables that were set while the member runs.
	changed sync.Map
}

// status is for the HTTP endpoint.
func (s *statusSource) status() httpapi.Status {
	v := s.node.View()
	self := s.self(v)
	st := httpapi.Status{GroupName: s.cfg.GroupName, ViewID: v.ViewID(), Self: self, Epoch: v.Epoch,
		LastOrdered: s.node.LastN(), Applied: s.router.Tracker(s.id).Low(), Serving: s.member.Ready()}
	if st.LastOrdered > st.Applied {
		st.Backlog = st.LastOrdered - st.Applied
	}
	for _, m := range v.Members {
		if m.Replica == 0 && m.ID != s.id || m.Incarnation == 0 {
			continue // it left, or has not come yet
		}
		st.Members = append(st.Members, member(m, v.Primary, s.member.Unreachable))
		if m.ID == v.Primary {
			st.Primary = m.Info.UUID
		}
		if m.ID == s.node.LeaderID() {
			st.Leader = m.Info.UUID
		}
	}
	if err := s.member.LastError(); err != nil && !st.Serving {
		st.Reason = err.Error()
	}
	if f := s.member.Fetch(); f.Err != nil {
		st.Reason = f.Err.Error()
	}
	return st
}

func (s *statusSource) self(v *state.View) httpapi.Self {
	host, port := hostPort(s.info.ClientAddress)
	self := httpapi.Self{MemberID: s.info.UUID, Host: host, Port: port, State: state.StateOffline.String()}
	if m, ok := v.Member(s.id); ok && m.Incarnation != 0 && s.member.Wanted() {
		self.State, self.Role = m.State.String(), role(m.ID, v.Primary)
	}
	switch f := s.member.Fetch(); {
	case s.member.Failed(): // out of the group against its will, which only it knows
		self.State, self.Role = state.StateError.String(), ""
	case !s.member.Wanted():
	case f.Err != nil:
		self.State, self.Role = state.StateError.String(), ""
	case f.Fetching: // the view is that of long ago
		self.State, self.Role = state.StateRecovering.String(), httpapi.Secondary
	}
	// The view may lag behind what this process knows of its own mysqld.
	if self.State == httpapi.Online && !s.member.Ready() {
		self.State = state.StateRecovering.String()
	}
	return self
}

// member is m as this member sees it.
func member(m state.Member, primary uint64, unreachable func(state.Member) bool) httpapi.Member {
	host, port := hostPort(m.Info.ClientAddress)
	seen := m.State.String()
	if unreachable(m) {
		seen = httpapi.Unreachable
	}
	return httpapi.Member{MemberID: m.Info.UUID, Host: host, Port: port, State: seen, Role: role(m.ID, primary),
		Version: m.Info.MysqldVersion, MysqldAddress: m.Info.MysqldAddress}
}

func role(id, primary uint64) string {
	if id == primary {
		return httpapi.Primary
	}
	return httpapi.Secondary
}

func hostPort(addr string) (string, int) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return strings.TrimSuffix(addr, ":"), 0
	}
	n, _ := strconv.Atoi(port) // a port that is no number shows as 0
	return host, n
}
