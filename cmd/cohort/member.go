package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"cohort/consensus"
	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/config"
	"cohort/internal/groupstats"
	"cohort/internal/httpapi"
	"cohort/internal/logging"
	"cohort/internal/mysqld"
	"cohort/internal/pause"
	"cohort/internal/persist"
	"cohort/recovery"
	"cohort/router"
)

// endTimeout is how long a member that cannot go on may take to end.
const endTimeout = 10 * time.Second

// serve wires one member together and runs it until ctx ends or a part that
// the member cannot do without fails.
func serve(ctx context.Context, cfg *config.Config, log zerolog.Logger) (err error) {
	for _, d := range []string{cfg.DataDir, filepath.Join(cfg.DataDir, "log"), filepath.Join(cfg.DataDir, "binlog")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make the member's directory: %w", err)
		}
	}
	persisted, err := persist.Open(cfg.DataDir)
	if err != nil {
		return err
	}
	usePersisted(cfg, persisted, logging.Component(log, "admin"))
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("with what SET PERSIST stored: %w", err)
	}
	id, err := identify(ctx, cfg, log)
	if err != nil {
		return err
	}
	info, err := describe(cfg, id)
	if err != nil {
		return err
	}
	self, err := consensus.MemberID(filepath.Join(cfg.DataDir, "log"), id.ServerUUID)
	if err != nil {
		return err
	}
	store, err := groupbinlog.Open(filepath.Join(cfg.DataDir, "binlog"),
		groupbinlog.Options{GroupUUID: cfg.GroupName, Logger: logging.Component(log, "groupbinlog")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	ref := &router.NodeRef{}
	rt := router.New(router.Options{Self: self, SelfUUID: id.ServerUUID, Socket: cfg.MysqldSocket, GroupName: cfg.GroupName,
		Log: ref, Logger: logging.Component(log, "router")})
	defer rt.Close()
	rt.NeedLease(needsLease(cfg.Consistency))

	g, ctx := errgroup.WithContext(ctx)
	fatal := make(chan error, 1)
	failed := func(err error) {
		select {
		case fatal <- err:
		default:
		}
	}
	stats := groupstats.New()
	threshold := int(cfg.CompressionThreshold)
	if threshold == 0 {
		threshold = -1
	}
	memberTLS, allowed, err := memberAccess(cfg, ref.View, log)
	if err != nil {
		return err
	}
	donors := recovery.NewDonors(recovery.DonorOptions{ReplicaID: self, UUID: id.ServerUUID, RetryCount: cfg.RecoveryRetryCount,
		ReconnectInterval: cfg.RecoveryReconnectInterval, TLS: memberTLS.Clients(), Logger: logging.Component(log, "recovery")})
	node, err := consensus.New(consensus.Config{
		TLS: memberTLS, Allowlist: allowed,
		Dir: filepath.Join(cfg.DataDir, "log"), GroupName: cfg.GroupName, ReplicaID: self, LocalAddress: cfg.LocalAddress,
		Seeds: cfg.GroupSeeds, ExpelTimeout: max(cfg.MemberExpelTimeout, time.Millisecond), Store: store, Observer: observers{rt, stats}, Logger: logging.Component(log, "consensus"),
		CompressionThreshold: threshold, FragmentSize: int(cfg.FragmentSize(consensus.DefaultFragmentSize)), FollowPrimary: true,
		OnFatal: failed, OnDiverged: donors.Diverged, Rows: donors, RetainLogBytes: cfg.LogSpace,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	ref.Set(node)
	donors.SetLocate(node.PeerAddresses)

	if cfg.ForceMembers != "" {
		log.Error().Str(forceMembers, cfg.ForceMembers).Msg("group_replication_force_members must be empty when a member starts: it stays out of the group until it is, and START GROUP_REPLICATION")
	}
	member, err := recovery.New(recovery.Options{
		ReplicaID: self, GroupName: cfg.GroupName, Bootstrap: cfg.BootstrapGroup, Settings: shared(cfg),
		Socket: cfg.MysqldSocket, AdminUser: cfg.AdminUser, AdminPassword: cfg.AdminPassword,
		Dir: cfg.DataDir, Info: info, FeedAddress: cfg.FeedAddress, PeerAddress: cfg.PeerListenAddress(),
		BinlogSpace: int64(cfg.BinlogSpace), Failed: failed,
		Policy: policy(cfg), Detection: detection(cfg),
		Standby: !cfg.StartOnBoot || cfg.ForceMembers != "", CommitterConns: int(cfg.CommitterConnections), TransactionSizeLimit: int64(cfg.TransactionSizeLimit),
		TLS: memberTLS, Allowlist: allowed, Node: node, Store: store, Donors: donors, Router: rt, UUID: id.ServerUUID, ServerVersion: id.Version, Logger: logging.Component(log, "member"),
	})
	if err != nil {
		return err
	}
	st := &statusSource{cfg: cfg, info: info, id: self, node: node, router: rt, member: member, donors: donors, stats: stats, life: member, persisted: persisted,
		log: logging.Component(log, "admin")}
	front, err := newProxy(cfg, st, rt, member, log)
	if err != nil {
		return errors.Join(err, member.Close())
	}
	member.SetSessions(front)
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return member.Run(ctx) })
	g.Go(func() error { return front.Run(ctx) })
	if cfg.HTTPAddress != "" {
		api, err := httpapi.New(httpapi.Options{Addr: cfg.HTTPAddress, Status: st.status, Registry: httpapi.NewRegistry(st.status),
			Pprof: cfg.HTTPPprof, Logger: logging.Component(log, "http")})
		if err != nil {
			g.Go(func() error { return err })
		} else {
			g.Go(func() error { return api.Run(ctx) })
		}
	}
	g.Go(func() error {
		select {
		case err := <-fatal:
			log.Error().Err(err).Msg("this member cannot go on; its process ends")
			// Half a member is worse than none: the others would wait for it.
			time.AfterFunc(endTimeout, func() {
				log.Error().Dur("waited", endTimeout).Msg("something of this member does not end; ending the process all the same")
				os.Exit(1)
			})
			rt.Close()
			return err
		case <-ctx.Done():
			// Sessions wait for verdicts that will not come to this process.
			rt.Close()
			return nil
		}
	})
	log.Info().Str("clients", cfg.BindAddress).Str("http", cfg.HTTPAddress).Str("group", cfg.GroupName).
		Uint64("member", self).Str("server_uuid", id.ServerUUID).Msg("member starting")
	return g.Wait()
}

// policy is the one that the member begins with.
func policy(cfg *config.Config) recovery.Policy {
	return recovery.Policy{ExpelTimeout: cfg.MemberExpelTimeout, MajorityTimeout: cfg.UnreachableMajorityTimeout,
		AutorejoinTries: cfg.AutorejoinTries, ExitAction: recovery.ExitAction(cfg.ExitStateAction)}
}

// detection is how fast the silence of others is noticed.
func detection(cfg *config.Config) recovery.Detection {
	if cfg.FailureDetection == "FAST" {
		return recovery.DetectFast
	}
	return recovery.DetectDefault
}

// identify waits for mysqld to answer and reads who it is.
func identify(ctx context.Context, cfg *config.Config, log zerolog.Logger) (mysqld.Identity, error) {
	db, err := mysqld.Open(cfg.MysqldSocket, cfg.AdminUser, cfg.AdminPassword)
	if err != nil {
		return mysqld.Identity{}, err
	}
	defer db.Close()
	for said := false; ; said = true {
		id, err := mysqld.ReadIdentity(ctx, db)
		if err == nil {
			return id, nil
		}
		if n := mysqld.Errno(err); n == 1045 || n == 1698 {
			return id, fmt.Errorf("mysqld refuses cohort_admin_user %q: %w", cfg.AdminUser, err)
		}
		if !said {
			log.Info().Err(err).Str("socket", cfg.MysqldSocket).Msg("waiting for mysqld")
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return id, err
		}
	}
}

// describe is what the group shall know of this member.
func describe(cfg *config.Config, id mysqld.Identity) (state.MemberInfo, error) {
	_, port, err := net.SplitHostPort(cfg.BindAddress)
	if err != nil {
		return state.MemberInfo{}, fmt.Errorf("cohort_bind_address: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return state.MemberInfo{}, fmt.Errorf("cohort_bind_address: port %q: %w", port, err)
	}
	return state.MemberInfo{UUID: id.ServerUUID, Weight: cfg.MemberWeight, HTTPAddress: cfg.HTTPAddress,
		MysqldAddress: cfg.MysqldAdvertised(id.Port), ClientAddress: cfg.Advertised(n), CohortVersion: version(),
		MysqldVersion: id.Version}, nil
}

// shared are the settings of this program that all members must have in common,
// one name=value a line.
func shared(cfg *config.Config) string {
	var b strings.Builder
	for _, name := range []string{"group_replication_single_primary_mode", "group_replication_enforce_update_everywhere_checks",
		"group_replication_gtid_assignment_block_size", "group_replication_view_change_uuid"} {
		if v, err := cfg.Get(name); err == nil {
			fmt.Fprintf(&b, "%s=%s\n", name, v)
		}
	}
	return b.String()
}

// observers are told one after the other; none changes what it is told.
type observers []consensus.Observer

// Skipped implements consensus.SkipObserver.
func (os observers) Skipped() {
	for _, o := range os {
		if s, ok := o.(consensus.SkipObserver); ok {
			s.Skipped()
		}
	}
}

// Ordered implements consensus.Observer.
func (os observers) Ordered(ds []state.Decision) {
	for _, o := range os {
		o.Ordered(ds)
	}
}
