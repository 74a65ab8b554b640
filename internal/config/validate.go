package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Validate reports everything that keeps the configuration from being used, all
// of it in one error that wraps ErrIncomplete. It touches neither disk nor
// network.
func (c *Config) Validate() error {
	var errs []error
	say := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %s", ErrIncomplete, fmt.Sprintf(format, args...)))
	}
	for _, name := range []string{"group_replication_group_name", "group_replication_local_address", "cohort_data_dir", "cohort_mysqld_socket"} {
		if v, _ := c.Get(name); v == "" {
			say("%s is not set", name)
		}
	}
	c.validateSeeds(say)
	if host, _, err := net.SplitHostPort(c.PeerAddress); err == nil && unspecified(host) {
		// The address the channel listens on is the one the others are told.
		say("cohort_peer_address (%s) needs a host that the other members can reach", c.PeerAddress)
	}
	if (c.SSLCert == "") != (c.SSLKey == "") {
		say("cohort_ssl_cert and cohort_ssl_key must be given together")
	}
	if (c.MemberSSLCert == "") != (c.MemberSSLKey == "") {
		say("cohort_member_ssl_cert and cohort_member_ssl_key must be given together")
	}
	if ca, cert, _ := c.MemberTLS(); strings.HasPrefix(c.SSLMode, "VERIFY_") && (ca == "" || cert == "") {
		say("group_replication_ssl_mode=%s needs cohort_member_ssl_ca, cohort_member_ssl_cert and cohort_member_ssl_key", c.SSLMode)
	}
	if !c.SinglePrimaryMode {
		say("group_replication_single_primary_mode=OFF: multi-primary mode is not there yet")
	}
	if c.SinglePrimaryMode && c.EnforceUpdateEverywhereChecks {
		say("Cannot enable group_replication_enforce_update_everywhere_checks while group_replication_single_primary_mode is enabled.")
	}
	return errors.Join(errs...)
}

func (c *Config) validateSeeds(say func(string, ...any)) {
	seeds := c.GroupSeeds
	for i, s := range seeds {
		if slices.Contains(seeds[:i], s) {
			say("group_replication_group_seeds names %s twice", s)
		}
	}
}

func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// LocalHost is the host of group_replication_local_address without brackets.
func (c *Config) LocalHost() string {
	host, _, err := net.SplitHostPort(c.LocalAddress)
	if err != nil {
		return ""
	}
	return host
}

// PeerListenAddress is where the members' own channel listens:
// cohort_peer_address, or the local host and a port the system chooses.
func (c *Config) PeerListenAddress() string {
	if c.PeerAddress != "" {
		return c.PeerAddress
	}
	return net.JoinHostPort(c.LocalHost(), "0")
}

// MemberTLS returns the files used between members: cohort_member_ssl_*, or
// cohort_ssl_*, as Group Replication takes the server's own.
func (c *Config) MemberTLS() (ca, cert, key string) {
	ca, cert, key = c.MemberSSLCA, c.MemberSSLCert, c.MemberSSLKey
	if ca == "" {
		ca = c.SSLCA
	}
	if cert == "" {
		cert, key = c.SSLCert, c.SSLKey
	}
	return ca, cert, key
}

// Advertised is the host and port shown to clients, given the port that the
// client listener really has (it may have been 0 in the configuration).
func (c *Config) Advertised(listenPort int) string {
	if c.AdvertiseAddress != "" {
		return c.AdvertiseAddress
	}
	return net.JoinHostPort(c.LocalHost(), fmt.Sprint(listenPort))
}

// MysqldAdvertised is where other members reach this mysqld, given the port that
// mysqld reports about itself.
func (c *Config) MysqldAdvertised(mysqldPort int) string {
	if c.MysqldAddress != "" {
		return c.MysqldAddress
	}
	return net.JoinHostPort(c.LocalHost(), fmt.Sprint(mysqldPort))
}

// FragmentSize is the size, in bytes, of the fragments of a large transaction:
// group_replication_communication_max_message_size, but no larger than the log's
// own limit most and no smaller than 1 KiB; 0 in the configuration means most.
func (c *Config) FragmentSize(most int) int {
	if c.CommunicationMaxMessageSize == 0 || c.CommunicationMaxMessageSize > uint64(most) {
		return most
	}
	return max(int(c.CommunicationMaxMessageSize), 1<<10)
}
