package main

import (
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"cohort/consensus/state"
	"cohort/internal/allowlist"
	"cohort/internal/config"
	"cohort/internal/grouptls"
	"cohort/internal/logging"
)

// memberAccess is how the members' connections are encrypted and from where they
// are accepted: both those of the log and those of the members' own channel.
func memberAccess(cfg *config.Config, view func() *state.View, log zerolog.Logger) (*grouptls.Config, *allowlist.List, error) {
	ca, cert, key := cfg.MemberTLS()
	tls, err := grouptls.Load(grouptls.Options{Mode: grouptls.Mode(cfg.SSLMode), CA: ca, Cert: cert, Key: key, Hosts: []string{cfg.LocalHost()}})
	if err != nil {
		return nil, nil, err
	}
	log = logging.Component(log, "access")
	members := func() []string {
		addrs := slices.Clone(cfg.GroupSeeds)
		for _, m := range view().Members {
			if m.Replica != 0 && m.Address != "" {
				addrs = append(addrs, m.Address)
			}
		}
		return addrs
	}
	list, err := allowlist.New(allowlist.Options{Entries: cfg.IPAllowlist, Members: members, Logger: log})
	if err != nil {
		return nil, nil, fmt.Errorf("group_replication_ip_allowlist: %w", err)
	}
	log.Info().Str("ssl_mode", cfg.SSLMode).Str("ip_allowlist", cfg.IPAllowlist).Str("networks", fmt.Sprint(list.Networks())).
		Msg("connections of other members")
	return tls, list, nil
}
