package wire

// MaxPayload is the largest payload of one physical packet. A payload of this
// very length is followed by a continuation packet, which may be empty.
const MaxPayload = 1<<24 - 1

// HeaderSize is the size of a packet header: 3 bytes length, 1 byte sequence.
const HeaderSize = 4

// Capability is the set of protocol features that both ends agreed on.
type Capability uint32

// Capability flags, by their bit in the protocol.
const (
	LongPassword Capability = 1 << iota
	FoundRows
	LongFlag
	ConnectWithDB
	NoSchema
	Compress
	ODBC
	LocalFiles
	IgnoreSpace
	Protocol41
	Interactive
	SSL
	IgnoreSigpipe
	Transactions
	Reserved
	SecureConnection
	MultiStatements
	MultiResults
	PSMultiResults
	PluginAuth
	ConnectAttrs
	PluginAuthLenenc
	CanHandleExpiredPasswords
	SessionTrack
	DeprecateEOF
	OptionalResultsetMetadata
	ZstdCompression
	QueryAttributes
	MultiFactorAuth
	CapabilityExtension
	SSLVerifyServerCert
	RememberOptions
)

// Has reports whether all flags of f are in c.
func (c Capability) Has(f Capability) bool { return c&f == f }

// Status is the server status of an OK or EOF packet.
type Status uint16

// Status flags.
const (
	StatusInTrans             Status = 0x0001
	StatusAutocommit          Status = 0x0002
	StatusMoreResults         Status = 0x0008
	StatusNoGoodIndexUsed     Status = 0x0010
	StatusNoIndexUsed         Status = 0x0020
	StatusCursorExists        Status = 0x0040
	StatusLastRowSent         Status = 0x0080
	StatusDBDropped           Status = 0x0100
	StatusNoBackslashEscapes  Status = 0x0200
	StatusMetadataChanged     Status = 0x0400
	StatusQueryWasSlow        Status = 0x0800
	StatusPSOutParams         Status = 0x1000
	StatusInTransReadonly     Status = 0x2000
	StatusSessionStateChanged Status = 0x4000
)

// Commands: the first byte of a packet in the command phase.
const (
	ComSleep byte = iota
	ComQuit
	ComInitDB
	ComQuery
	ComFieldList
	ComCreateDB
	ComDropDB
	ComRefresh
	ComShutdown
	ComStatistics
	ComProcessInfo
	ComConnect
	ComProcessKill
	ComDebug
	ComPing
	ComTime
	ComDelayedInsert
	ComChangeUser
	ComBinlogDump
	ComTableDump
	ComConnectOut
	ComRegisterReplica
	ComStmtPrepare
	ComStmtExecute
	ComStmtSendLongData
	ComStmtClose
	ComStmtReset
	ComSetOption
	ComStmtFetch
	ComDaemon
	ComBinlogDumpGTID
	ComResetConnection
	ComClone
	ComSubscribeGroupReplicationStream
)

// First bytes of packets from the server.
const (
	HeaderOK         byte = 0x00
	HeaderAuthMore   byte = 0x01
	HeaderNextFactor byte = 0x02
	HeaderLocalFile  byte = 0xFB
	HeaderEOF        byte = 0xFE
	HeaderERR        byte = 0xFF
)

// Authentication plugins.
const (
	PluginNative      = "mysql_native_password"
	PluginSHA256      = "sha256_password"
	PluginCachingSHA2 = "caching_sha2_password"
	PluginClear       = "mysql_clear_password"
)

// Payload bytes of caching_sha2_password's and sha256_password's exchanges.
const (
	CachingRequestKey byte = 0x02 // client: send me the RSA public key
	CachingFastOK     byte = 0x03 // server: the scramble was right
	CachingFullAuth   byte = 0x04 // server: send me the password itself
	SHA256RequestKey  byte = 0x01 // client: send me the RSA public key
	SaltLen                = 20
	defaultCharset    byte = 255 // utf8mb4_0900_ai_ci
	protocolVersion   byte = 10
	maxAuthPacket          = 1 << 18
	maxControlPacket       = 1 << 22
)
