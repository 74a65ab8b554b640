package feed

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"cohort/internal/wire"
)

// errDenied ends a connection that did not authenticate.
var errDenied = errors.New("access denied")

// errProtocol ends a connection that does not speak as a receiver does.
var errProtocol = errors.New("unexpected packet from a receiver")

// maxCommand bounds a command packet: the largest holds a GTID set, 40 bytes
// for each interval and UUID.
const maxCommand = 16 << 20

const serverCaps = wire.LongPassword | wire.LongFlag | wire.ConnectWithDB | wire.Protocol41 | wire.Transactions |
	wire.SecureConnection | wire.PluginAuth | wire.PluginAuthLenenc | wire.ConnectAttrs | wire.DeprecateEOF

// session is one connection. One goroutine runs it; streaming, uuid and
// serverID are written under Feed.mu or before streaming is set.
type session struct {
	f      *Feed
	nc     net.Conn
	c      *wire.Conn
	id     uint32
	cancel context.CancelCauseFunc

	caps      wire.Capability
	uuid      string
	serverID  uint32
	heartbeat time.Duration
	// plainRotate: the receiver expects no checksum before the format
	// description told it of them.
	plainRotate bool

	streaming bool
	sentN     atomic.Uint64
}

func newSession(f *Feed, nc net.Conn, id uint32, cancel context.CancelCauseFunc) *session {
	return &session{f: f, nc: nc, c: wire.NewConn(nc), id: id, cancel: cancel}
}

func (s *session) log(err, cause error) {
	ev := s.f.opt.Logger.Info()
	if cause != nil && err != nil {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	ev.Str("remote", s.nc.RemoteAddr().String()).Str("receiver", s.uuid).Uint64("sent", s.sentN.Load()).AnErr("reason", err).
		Msg("feed connection ended")
}

// run serves the connection to its end.
func (s *session) run(ctx context.Context) error {
	if err := s.nc.SetDeadline(time.Now().Add(s.f.opt.HandshakeTimeout)); err != nil {
		return err
	}
	if err := s.authenticate(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	for {
		p, err := s.c.ReadPacket(maxCommand)
		if err != nil {
			return err
		}
		if len(p) == 0 {
			return fmt.Errorf("%w: empty", errProtocol)
		}
		switch p[0] {
		case wire.ComQuit:
			return nil
		case wire.ComQuery:
			err = s.query(string(p[1:]))
		case wire.ComRegisterReplica:
			if len(p) >= 5 {
				s.serverID = binary.LittleEndian.Uint32(p[1:])
			}
			err = s.ok()
		case wire.ComPing, wire.ComInitDB:
			err = s.ok()
		case wire.ComBinlogDumpGTID:
			return s.dump(ctx, p[1:])
		case wire.ComBinlogDump:
			return s.fail(wire.NewError(1236, "HY000", "this source serves only receivers with SOURCE_AUTO_POSITION = 1"))
		default:
			err = s.fail(wire.NewError(1047, "08S01", "Unknown command"))
		}
		if err != nil {
			return err
		}
	}
}

// authenticate runs caching_sha2_password's fast exchange. The scramble of the
// one password that counts is verified for real, whereupon the fast path can
// always be confirmed: no receiver ever needs TLS or our public key.
func (s *session) authenticate(ctx context.Context) error {
	caps := serverCaps
	if s.f.opt.TLS != nil {
		caps |= wire.SSL
	}
	var salt [wire.SaltLen]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	for i := range salt { // printable: old clients take it for a string
		salt[i] = salt[i]%94 + 33
	}
	g := wire.Greeting{
		ServerVersion: s.f.opt.ServerVersion, ThreadID: s.id, Salt: salt[:], Caps: caps,
		Charset: 255, Status: wire.StatusAutocommit, AuthPlugin: wire.PluginCachingSHA2,
	}
	if err := s.send(g.Append(nil)); err != nil {
		return err
	}
	p, err := s.c.ReadPacket(maxHandshake)
	if err != nil {
		return err
	}
	if caps.Has(wire.SSL) && wire.IsSSLRequest(p) {
		if err := s.c.ServerTLS(ctx, s.f.opt.TLS); err != nil {
			return err
		}
		s.nc = s.c.NetConn()
		if p, err = s.c.ReadPacket(maxHandshake); err != nil {
			return err
		}
	}
	r, err := wire.ParseHandshakeResponse(p, caps)
	if err != nil {
		return err
	}
	s.caps = r.Caps
	answer := r.AuthResponse
	if r.AuthPlugin != wire.PluginCachingSHA2 {
		if err := s.send(wire.AppendAuthSwitch(nil, wire.PluginCachingSHA2, salt[:])); err != nil {
			return err
		}
		if p, err = s.c.ReadPacket(maxHandshake); err != nil {
			return err
		}
		answer = append([]byte(nil), p...)
	}
	want := wire.ScrambleSHA256(salt[:], []byte(s.f.opt.Password))
	good := subtle.ConstantTimeCompare(answer, want) & subtle.ConstantTimeCompare([]byte(r.User), []byte(s.f.opt.User))
	if good != 1 {
		return errors.Join(errDenied, s.fail(wire.NewError(1045, "28000", "Access denied for user '%s'", r.User)))
	}
	if err := s.send([]byte{wire.HeaderAuthMore, wire.CachingFastOK}); err != nil {
		return err
	}
	return s.ok()
}

const maxHandshake = 64 << 10

var (
	setHeartbeat = regexp.MustCompile(`(?i)@(?:master|source)_heartbeat_period\s*=\s*(\d+)`)
	setUUID      = regexp.MustCompile(`(?i)@(?:slave|replica)_uuid\s*=\s*'([^']*)'`)
	setChecksum  = regexp.MustCompile(`(?i)@(?:master|source)_binlog_checksum\s*=\s*'NONE'`)
)

// query answers what receivers ask. Anything else is an error, which a receiver
// reports and retries.
func (s *session) query(q string) error {
	text := strings.TrimRight(strings.TrimSpace(q), "; ")
	lower := strings.ToLower(text)
	if strings.HasPrefix(lower, "set ") {
		if m := setHeartbeat.FindStringSubmatch(text); m != nil {
			ns, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return s.fail(wire.NewError(1231, "42000", "heartbeat period out of range"))
			}
			s.heartbeat = time.Duration(ns)
		}
		if m := setUUID.FindStringSubmatch(text); m != nil {
			s.uuid = m[1]
		}
		if setChecksum.MatchString(text) {
			s.plainRotate = true
		}
		return s.ok()
	}
	o := &s.f.opt
	switch lower {
	case "select unix_timestamp()":
		return s.value(text, strconv.FormatInt(time.Now().Unix(), 10))
	case "select @@global.server_id":
		return s.value(text, strconv.FormatUint(uint64(o.ServerID), 10))
	case "select @@global.server_uuid":
		return s.value(text, o.ServerUUID)
	case "select @@global.gtid_mode":
		return s.value(text, "ON")
	case "select @source_binlog_checksum", "select @master_binlog_checksum", "select @@global.binlog_checksum":
		return s.value(text, "CRC32")
	case "select version()", "select @@version", "select @@global.version":
		return s.value(text, o.ServerVersion)
	case "select @@global.rpl_semi_sync_source_enabled", "select @@global.rpl_semi_sync_master_enabled":
		return s.value(text, "0")
	}
	return s.fail(wire.NewError(1235, "42000", "This replication source does not support '%s'", clip(text)))
}

func clip(q string) string {
	if len(q) > 200 {
		return q[:200]
	}
	return q
}

func (s *session) value(q, v string) error {
	col := wire.Column{Name: q[len("select "):], Charset: 255, Length: 1024, Type: wire.TypeVarString}
	ok := wire.OK{Status: wire.StatusAutocommit}
	if err := wire.WriteTextResult(s.c, s.caps, []wire.Column{col}, [][][]byte{{[]byte(v)}}, &ok); err != nil {
		return err
	}
	return s.c.Flush()
}

func (s *session) ok() error {
	return s.send(wire.AppendOK(nil, wire.HeaderOK, &wire.OK{Status: wire.StatusAutocommit}, s.caps))
}

// fail sends an ERR packet; the error it returns is only that of sending.
func (s *session) fail(e *wire.ServerError) error {
	return s.send(wire.AppendERR(nil, e))
}

func (s *session) send(payload []byte) error {
	if err := s.c.WritePacket(payload); err != nil {
		return err
	}
	return s.c.Flush()
}
