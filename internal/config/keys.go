package config

import "time"

// Config is everything one member can be told. Each field is one key of the
// configuration file: its comment describes the key and is what the sample
// file and the manual print; its tags give the facts that Set enforces.
//
// Tags: key is the name; def the default as text; min and max an inclusive
// range; enum the accepted words; kind a check beyond the Go type; unit what a
// number counts; live "yes" where the value may change while the member is in
// a group (all others need a restart of the member); later names what must
// arrive before the key has an effect (the value is checked all the same);
// secret "yes" keeps the value out of everything printed.
type Config struct {
	// GroupName: The UUID that names the group. Every group transaction has the
	// GTID GroupName:N, so it must be equal on all members and differ from the
	// server_uuid of each mysqld. Required.
	GroupName string `key:"group_replication_group_name" kind:"uuid" live:"no"`

	// LocalAddress: The host:port on which the other members reach this
	// member's ordered log. Each member needs its own. Required.
	LocalAddress string `key:"group_replication_local_address" kind:"hostport" live:"no"`

	// GroupSeeds: The local addresses of some members, separated by commas. A
	// member that is not in the group yet, or not any more, asks them one after
	// the other to be let in; its own address may be among them.
	GroupSeeds []string `key:"group_replication_group_seeds" kind:"hostports" live:"no"`

	// BootstrapGroup: ON for exactly one member at the group's very first start:
	// it founds the group and becomes the primary. It does nothing when the data
	// directory already holds a group, or when one of the seeds does.
	BootstrapGroup bool `key:"group_replication_bootstrap_group" def:"OFF" live:"no"`

	// StartOnBoot: Join the group as soon as the process runs.
	StartOnBoot bool `key:"group_replication_start_on_boot" def:"ON" live:"yes"`

	// SinglePrimaryMode: One writable member. OFF (every member writable) is
	// refused until multi-primary mode exists.
	SinglePrimaryMode bool `key:"group_replication_single_primary_mode" def:"ON" live:"no"`

	// EnforceUpdateEverywhereChecks: The stricter statement checks of
	// multi-primary mode; cannot be ON together with single-primary mode.
	EnforceUpdateEverywhereChecks bool `key:"group_replication_enforce_update_everywhere_checks" def:"OFF" live:"no" later:"multi-primary mode"`

	// MemberWeight: How much this member is preferred as the next primary; the
	// highest weight wins.
	MemberWeight uint64 `key:"group_replication_member_weight" def:"50" min:"0" max:"100" unit:"points" live:"yes"`

	// Consistency: The consistency level of sessions that have not set their own. With
	// EVENTUAL a member that has lost its majority goes on serving reads, which may be
	// old; with any other they wait there.
	Consistency string `key:"group_replication_consistency" def:"BEFORE_ON_PRIMARY_FAILOVER" enum:"EVENTUAL,BEFORE_ON_PRIMARY_FAILOVER,BEFORE,AFTER,BEFORE_AND_AFTER" live:"yes" effective:"EVENTUAL,BEFORE_ON_PRIMARY_FAILOVER" later:"consistency levels"`

	// TransactionSizeLimit: The largest transaction the group takes; a bigger
	// one fails at COMMIT with error 3100 and is rolled back. DDL is not
	// limited. 0 means no limit.
	TransactionSizeLimit uint64 `key:"group_replication_transaction_size_limit" def:"150000000" min:"0" max:"2147483647" unit:"bytes" live:"yes"`

	// CompressionThreshold: Transactions larger than this are compressed before
	// they enter the ordered log. 0 means never.
	CompressionThreshold uint64 `key:"group_replication_compression_threshold" def:"1000000" min:"0" max:"4294967295" unit:"bytes" live:"no"`

	// CommunicationMaxMessageSize: Transactions are cut into fragments no larger
	// than this. The ordered log has a limit of its own (1 MiB) that a larger
	// value does not lift, and below 1 KiB it stays at 1 KiB; 0 means only the
	// log's own limit counts.
	CommunicationMaxMessageSize uint64 `key:"group_replication_communication_max_message_size" def:"10485760" min:"0" max:"1073741824" unit:"bytes" live:"no"`

	// MessageCacheSize: Group Replication's bound on its message cache. Here the
	// log is on disk and memory is bounded separately, so the value has no
	// meaning beyond being accepted.
	MessageCacheSize uint64 `key:"group_replication_message_cache_size" def:"1073741824" min:"134217728" max:"18446744073709551615" unit:"bytes" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// MemberExpelTimeout: How long a member that is silent and therefore UNREACHABLE
	// (see cohort_failure_detection) is waited for before it is expelled. A primary is replaced without
	// waiting, and a member whose process has ended is not waited for.
	MemberExpelTimeout time.Duration `key:"group_replication_member_expel_timeout" def:"5" min:"0" max:"3600" unit:"seconds" live:"yes"`

	// UnreachableMajorityTimeout: How long a member that has lost its majority waits
	// before it is out of the group: clients that wait get error 1180, its state is
	// ERROR, and it tries to rejoin. 0 means for ever.
	UnreachableMajorityTimeout time.Duration `key:"group_replication_unreachable_majority_timeout" def:"0" min:"0" max:"31536000" unit:"seconds" live:"yes"`

	// AutorejoinTries: How often a member that was expelled, or without a majority
	// for too long, tries to come back by itself before it takes its exit action:
	// at once, and then every 5 minutes or when the majority is back.
	AutorejoinTries uint64 `key:"group_replication_autorejoin_tries" def:"3" min:"0" max:"2016" unit:"tries" live:"yes"`

	// ExitStateAction: What a member does that is out of the group against its will
	// and cannot come back. Its mysqld takes no writes in any case. READ_ONLY: its
	// clients read there; OFFLINE_MODE: its mysqld refuses all without
	// CONNECTION_ADMIN; ABORT_SERVER: its mysqld is shut down and the process ends.
	ExitStateAction string `key:"group_replication_exit_state_action" def:"OFFLINE_MODE" enum:"READ_ONLY,ABORT_SERVER,OFFLINE_MODE" live:"yes"`

	// IPAllowlist: From where members are accepted: addresses, networks, names
	// and names/bits, separated by commas, or AUTOMATIC for loopback and the
	// private networks of this host. The members of the group and the hosts in
	// group_replication_group_seeds always are. An address passes by a name only if its own name leads back to
	// it.
	IPAllowlist string `key:"group_replication_ip_allowlist" def:"AUTOMATIC" kind:"allowlist" live:"yes"`

	// SSLMode: Encryption between members, equal on all of them. REQUIRED
	// encrypts and authenticates nobody; VERIFY_CA wants of both sides a
	// certificate of cohort_member_ssl_ca, VERIFY_IDENTITY also that it is for
	// the host of the member's address.
	SSLMode string `key:"group_replication_ssl_mode" def:"REQUIRED" enum:"DISABLED,REQUIRED,VERIFY_CA,VERIFY_IDENTITY" live:"no"`

	// RecoveryRetryCount: How many attempts to fetch what the ordered log no
	// longer holds from other members may fail in a row before this member gives
	// up and is in ERROR. 0 counts as 1.
	RecoveryRetryCount uint64 `key:"group_replication_recovery_retry_count" def:"10" min:"0" max:"31536000" unit:"tries" live:"yes"`

	// RecoveryReconnectInterval: The pause after every donor was tried.
	RecoveryReconnectInterval time.Duration `key:"group_replication_recovery_reconnect_interval" def:"60" min:"0" max:"31536000" unit:"seconds" live:"yes"`

	// RecoveryUseSSL: Use TLS towards a donor.
	RecoveryUseSSL bool `key:"group_replication_recovery_use_ssl" def:"ON" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCA: The file with the authorities trusted for donors.
	RecoverySSLCA string `key:"group_replication_recovery_ssl_ca" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCert: The certificate file shown to donors.
	RecoverySSLCert string `key:"group_replication_recovery_ssl_cert" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLKey: The private key file of that certificate.
	RecoverySSLKey string `key:"group_replication_recovery_ssl_key" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLVerifyServerCert: Check the donor's name against its
	// certificate.
	RecoverySSLVerifyServerCert bool `key:"group_replication_recovery_ssl_verify_server_cert" def:"OFF" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCAPath: A directory with the authorities trusted for
	// donors.
	RecoverySSLCAPath string `key:"group_replication_recovery_ssl_capath" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCRL: A file with certificates revoked for donors.
	RecoverySSLCRL string `key:"group_replication_recovery_ssl_crl" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCRLPath: A directory with certificates revoked for
	// donors.
	RecoverySSLCRLPath string `key:"group_replication_recovery_ssl_crlpath" kind:"path" live:"yes" later:"TLS towards donors"`

	// RecoverySSLCipher: The ciphers permitted towards a donor up to
	// TLS 1.2.
	RecoverySSLCipher string `key:"group_replication_recovery_ssl_cipher" live:"yes" later:"TLS towards donors"`

	// RecoveryTLSVersion: The TLS versions permitted towards a donor.
	RecoveryTLSVersion string `key:"group_replication_recovery_tls_version" def:"TLSv1.2,TLSv1.3" live:"yes" later:"TLS towards donors"`

	// RecoveryTLSCiphersuites: The cipher suites permitted towards a
	// donor with TLS 1.3.
	RecoveryTLSCiphersuites string `key:"group_replication_recovery_tls_ciphersuites" live:"yes" later:"TLS towards donors"`

	// AdvertiseRecoveryEndpoints: Where joining members reach this
	// one as a donor; DEFAULT means the address mysqld reports.
	AdvertiseRecoveryEndpoints string `key:"group_replication_advertise_recovery_endpoints" def:"DEFAULT" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// RecoveryPublicKeyPath: The file with the donor's RSA public key.
	RecoveryPublicKeyPath string `key:"group_replication_recovery_public_key_path" kind:"path" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// RecoveryGetPublicKey: Ask the donor for its RSA public key.
	RecoveryGetPublicKey bool `key:"group_replication_recovery_get_public_key" def:"OFF" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// RecoveryCompressionAlgorithms: Algorithms permitted towards a donor, from
	// zlib, zstd and uncompressed, separated by commas, lower case.
	RecoveryCompressionAlgorithms string `key:"group_replication_recovery_compression_algorithms" def:"uncompressed" kind:"compression" live:"yes" later:"compression towards donors"`

	// RecoveryZstdCompressionLevel: The zstd level towards a donor.
	RecoveryZstdCompressionLevel uint64 `key:"group_replication_recovery_zstd_compression_level" def:"3" min:"1" max:"22" unit:"level" live:"yes" later:"compression towards donors"`

	// CloneThreshold: A joining member that misses more transactions than this
	// is cloned instead of fed.
	CloneThreshold uint64 `key:"group_replication_clone_threshold" def:"9223372036854775807" min:"1" max:"9223372036854775807" unit:"transactions" live:"yes" later:"clone"`

	// ComponentsStopTimeout: How long leaving the group may wait for each part
	// to finish.
	ComponentsStopTimeout time.Duration `key:"group_replication_components_stop_timeout" def:"300" min:"2" max:"31536000" unit:"seconds" live:"yes" later:"stopping replication channels"`

	// FlowControlMode: Whether writers are slowed down for members that lag.
	FlowControlMode string `key:"group_replication_flow_control_mode" def:"QUOTA" enum:"DISABLED,QUOTA" live:"yes" later:"flow control"`

	// FlowControlApplierThreshold: The applier backlog above which flow control
	// begins.
	FlowControlApplierThreshold uint64 `key:"group_replication_flow_control_applier_threshold" def:"25000" min:"0" max:"2147483647" unit:"transactions" live:"yes" later:"flow control"`

	// FlowControlCertifierThreshold: The certification backlog above which flow
	// control begins.
	FlowControlCertifierThreshold uint64 `key:"group_replication_flow_control_certifier_threshold" def:"25000" min:"0" max:"2147483647" unit:"transactions" live:"yes" later:"flow control"`

	// FlowControlHoldPercent: The share of the quota that is left unused
	// so that a backlog can shrink.
	FlowControlHoldPercent uint64 `key:"group_replication_flow_control_hold_percent" def:"10" min:"0" max:"100" unit:"percent" live:"yes" later:"flow control"`

	// FlowControlReleasePercent: How fast the quota grows again once
	// nobody lags.
	FlowControlReleasePercent uint64 `key:"group_replication_flow_control_release_percent" def:"50" min:"0" max:"1000" unit:"percent" live:"yes" later:"flow control"`

	// FlowControlMaxQuota: The highest quota of the group; 0 means no
	// bound.
	FlowControlMaxQuota uint64 `key:"group_replication_flow_control_max_quota" def:"0" min:"0" max:"2147483647" unit:"transactions" live:"yes" later:"flow control"`

	// FlowControlMinQuota: The lowest quota that a member gets; 0 leaves
	// it to flow control.
	FlowControlMinQuota uint64 `key:"group_replication_flow_control_min_quota" def:"0" min:"0" max:"2147483647" unit:"transactions" live:"yes" later:"flow control"`

	// FlowControlMinRecoveryQuota: The lowest quota while another
	// member recovers; 0 leaves it to flow control.
	FlowControlMinRecoveryQuota uint64 `key:"group_replication_flow_control_min_recovery_quota" def:"0" min:"0" max:"2147483647" unit:"transactions" live:"yes" later:"flow control"`

	// FlowControlMemberQuotaPercent: The share of the quota that
	// this member takes for itself; 0 means equal shares.
	FlowControlMemberQuotaPercent uint64 `key:"group_replication_flow_control_member_quota_percent" def:"0" min:"0" max:"100" unit:"percent" live:"yes" later:"flow control"`

	// FlowControlPeriod: The time between two rounds of flow control.
	FlowControlPeriod time.Duration `key:"group_replication_flow_control_period" def:"1" min:"1" max:"60" unit:"seconds" live:"yes" later:"flow control"`

	// AutoIncrementIncrement: The auto_increment_increment that members
	// take in multi-primary mode.
	AutoIncrementIncrement uint64 `key:"group_replication_auto_increment_increment" def:"7" min:"1" max:"65535" unit:"values" live:"no" later:"multi-primary mode"`

	// ForceMembers: The membership that is forced upon a group without a
	// majority; never set it in a file.
	ForceMembers string `key:"group_replication_force_members" live:"yes"`

	// GTIDAssignmentBlockSize: How many numbers a member reserves at
	// a time. Here the ordered log gives numbers without gaps.
	GTIDAssignmentBlockSize uint64 `key:"group_replication_gtid_assignment_block_size" def:"1000000" min:"1" max:"9223372036854775807" unit:"numbers" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// ViewChangeUUID: The UUID of view change events. Here views take no
	// GTID.
	ViewChangeUUID string `key:"group_replication_view_change_uuid" def:"AUTOMATIC" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// PaxosSingleLeader: Whether the plugin's Paxos uses one leader.
	PaxosSingleLeader bool `key:"group_replication_paxos_single_leader" def:"OFF" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// PollSpinLoops: How long the plugin spins for a message.
	PollSpinLoops uint64 `key:"group_replication_poll_spin_loops" def:"0" min:"0" max:"18446744073709551615" unit:"loops" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// CommunicationStack: The plugin's transport. Members of cohort have
	// their own, and cannot be in one group with the plugin.
	CommunicationStack string `key:"group_replication_communication_stack" def:"XCOM" enum:"XCOM,MYSQL" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// CommunicationDebugOptions: What the plugin's transport
	// traces; see cohort_log_level.
	CommunicationDebugOptions string `key:"group_replication_communication_debug_options" def:"GCS_DEBUG_NONE" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// TLSSource: Whose TLS settings the plugin's transport takes.
	TLSSource string `key:"group_replication_tls_source" def:"MYSQL_MAIN" enum:"MYSQL_MAIN,MYSQL_ADMIN" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// PreemptiveGarbageCollection: Whether certification data are
	// dropped early in single-primary mode. Here the log decides.
	PreemptiveGarbageCollection bool `key:"group_replication_preemptive_garbage_collection" def:"OFF" live:"no" later:"nothing: accepted so that a file can be moved over"`

	// PreemptiveGarbageCollectionRowsThreshold: The
	// number of rows from which that happens.
	PreemptiveGarbageCollectionRowsThreshold uint64 `key:"group_replication_preemptive_garbage_collection_rows_threshold" def:"100000" min:"10000" max:"100000000" unit:"rows" live:"yes" later:"nothing: accepted so that a file can be moved over"`

	// BindAddress: The host:port on which clients are served with the MySQL
	// protocol. An empty host means every address of the machine.
	BindAddress string `key:"cohort_bind_address" def:":6446" kind:"listen" live:"no"`

	// AdvertiseAddress: The host:port shown to clients as this member's
	// MEMBER_HOST and MEMBER_PORT. Empty means the host of
	// group_replication_local_address with the port of cohort_bind_address.
	AdvertiseAddress string `key:"cohort_advertise_address" kind:"hostport" live:"no"`

	// HTTPAddress: The host:port of the health, metrics and status endpoint.
	// Empty switches it off.
	HTTPAddress string `key:"cohort_http_address" def:"127.0.0.1:6480" kind:"listen" live:"no"`

	// HTTPPprof: Serve Go's profiles under /debug/pprof/ of the HTTP endpoint.
	HTTPPprof bool `key:"cohort_http_pprof" def:"OFF" live:"no"`

	// PeerAddress: The host:port of the members' own channel, with a host that
	// the others can reach; port 0 lets the system choose. Empty means the
	// host of group_replication_local_address and a port the system chooses;
	// the others learn it through the log.
	PeerAddress string `key:"cohort_peer_address" kind:"listen" live:"no"`

	// FailureDetection: How fast the silence of another member is noticed, and a
	// primary that is silent replaced: after 0.9 s, or with FAST after 0.4 s. A wrong
	// suspicion costs a change of the primary and no data; FAST is for machines and
	// networks without stalls of a quarter of a second. Members may differ: that of
	// the log's leader counts, which may be any.
	FailureDetection string `key:"cohort_failure_detection" def:"DEFAULT" enum:"DEFAULT,FAST" live:"no"`

	// FeedAddress: The host:port on which this member feeds its own mysqld as a
	// replication source. Only that mysqld connects to it.
	FeedAddress string `key:"cohort_feed_address" def:"127.0.0.1:0" kind:"listen" live:"no"`

	// MysqldSocket: The unix socket of this member's mysqld. Required.
	MysqldSocket string `key:"cohort_mysqld_socket" kind:"path" live:"no"`

	// MysqldAddress: The host:port under which the other members reach this
	// mysqld for their clients' sessions. Empty means the host of
	// group_replication_local_address and the port mysqld itself reports.
	MysqldAddress string `key:"cohort_mysqld_address" kind:"hostport" live:"no"`

	// AdminUser: The account used over the socket at start to prepare mysqld and
	// to create the member's own, least-privileged account; for nothing else.
	AdminUser string `key:"cohort_admin_user" def:"root" live:"no"`

	// AdminPassword: Its password. Prefer the environment to the command line,
	// which other users of the machine can read.
	AdminPassword string `key:"cohort_admin_password" live:"no" secret:"yes"`

	// DataDir: The directory of the ordered log, the group binlog and the
	// member's own credentials; created with mode 0700. Required.
	DataDir string `key:"cohort_data_dir" kind:"path" live:"no"`

	// BinlogSpace: How large the group binlog may grow before its oldest files
	// are removed. What a member has not applied yet stays, however large it
	// gets. 0 keeps everything.
	BinlogSpace uint64 `key:"cohort_binlog_space" def:"10737418240" min:"0" max:"1125899906842624" unit:"bytes" live:"no"`

	// LogSpace: How much of the ordered log is kept for members that are away. One
	// that was away for longer fetches what it lacks from the group binlog of
	// another member.
	LogSpace uint64 `key:"cohort_log_space" def:"1073741824" min:"8388608" max:"1099511627776" unit:"bytes" live:"no"`

	// MemberSSLCA: The file with the authorities of the members' certificates,
	// needed from group_replication_ssl_mode=VERIFY_CA on. Empty: cohort_ssl_ca.
	MemberSSLCA string `key:"cohort_member_ssl_ca" kind:"path" live:"no"`

	// MemberSSLCert: The certificate file shown to other members, by whichever
	// side connects. Empty: that of cohort_ssl_cert, or else, up to REQUIRED, a
	// self-signed one made at each start. Give cohort_member_ssl_key with it.
	MemberSSLCert string `key:"cohort_member_ssl_cert" kind:"path" live:"no"`

	// MemberSSLKey: The private key file of cohort_member_ssl_cert.
	MemberSSLKey string `key:"cohort_member_ssl_key" kind:"path" live:"no"`

	// SSLCert: The certificate file shown to clients. Empty: a self-signed one
	// is made at each start. Give cohort_ssl_key with it.
	SSLCert string `key:"cohort_ssl_cert" kind:"path" live:"no"`

	// SSLKey: The private key file of cohort_ssl_cert.
	SSLKey string `key:"cohort_ssl_key" kind:"path" live:"no"`

	// SSLCA: The file with the authorities whose client certificates are
	// accepted. Empty: client certificates are not asked for.
	SSLCA string `key:"cohort_ssl_ca" kind:"path" live:"no"`

	// MaxConnections: How many client connections this member serves at once;
	// further ones get error 1040.
	MaxConnections uint64 `key:"cohort_max_connections" def:"1000" min:"1" max:"100000" unit:"connections" live:"no"`

	// WaitTimeout: A client connection without a statement for this long is
	// closed. mysqld's own wait_timeout applies to its session as well; the
	// shorter one counts.
	WaitTimeout time.Duration `key:"cohort_wait_timeout" def:"28800" min:"1" max:"31536000" unit:"seconds" live:"no"`

	// CommitterConnections: How many connections the committer keeps to its
	// mysqld. More of them let more XA COMMITs share one flush.
	CommitterConnections uint64 `key:"cohort_committer_connections" def:"16" min:"1" max:"256" unit:"connections" live:"no"`

	// Durability: Who answers for an acknowledged transaction after a crash.
	// LOCAL leaves mysqld's own sync_binlog and innodb_flush_log_at_trx_commit
	// as they are. GROUP (mysqld relaxed, brought back from the group after a
	// power loss) is refused until that exists.
	Durability string `key:"cohort_durability" def:"LOCAL" enum:"LOCAL" live:"no"`

	// LogLevel: The least important event that is logged.
	LogLevel string `key:"cohort_log_level" def:"info" enum:"trace,debug,info,warn,error" live:"no"`

	// LogFormat: console is for reading, json is for machines, auto means
	// console on a terminal and json elsewhere. One line an event either way.
	LogFormat string `key:"cohort_log_format" def:"auto" enum:"auto,console,json" live:"no"`

	explicit map[string]Origin
}
