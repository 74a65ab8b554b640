package state

import "fmt"

// Kind is the type of an item in the log. Numbers are never reused.
type Kind uint8

// The kinds of items.
const (
	// KindBootstrap founds the group. The first one counts, later ones do
	// nothing.
	KindBootstrap Kind = 1
	// KindJoin begins a new incarnation of a member and fences older ones.
	KindJoin Kind = 2
	// KindState changes the state of a member.
	KindState Kind = 3
	// KindPrimary appoints a primary and begins a new epoch.
	KindPrimary Kind = 4
	// KindTxn is a prepared transaction to be decided.
	KindTxn Kind = 5
	// KindDirect is a statement that its origin has already committed.
	KindDirect Kind = 6
	// KindFragment is a part of the body of a transaction that comes later.
	KindFragment Kind = 7
	// KindAbort decides that prepared transactions of which the log does not
	// know yet do not commit.
	KindAbort Kind = 8
	// KindWatermark reports what a member has applied.
	KindWatermark Kind = 9
	// KindRules raises the version of the decision rules.
	KindRules Kind = 10
	// KindAdmit gives a member a replica of the log.
	KindAdmit Kind = 11
	// KindEvict takes a member's replica out of the log.
	KindEvict Kind = 12
	// KindForce makes a part of the members the group.
	KindForce Kind = 13
	// KindWeight changes a member's weight in elections.
	KindWeight Kind = 14
)

// String returns the kind's name.
func (k Kind) String() string {
	names := [...]string{"", "bootstrap", "join", "state", "primary", "txn", "direct",
		"fragment", "abort", "watermark", "rules", "admit", "evict", "force", "weight"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

const (
	entryVersion = 1
	txnVersion   = 1
)

// AppendHeader begins an entry. Items are appended after it.
func AppendHeader(b []byte) []byte { return append(b, entryVersion) }

// appendItem appends an item: kind, length, body.
func appendItem(b []byte, k Kind, body []byte) []byte {
	b = append(b, byte(k))
	return appendBytes(b, body)
}

// lengthSize is that of the padded varint by which beginItem leaves room for a
// length that is known only at the end: up to 2^28-1 bytes.
const lengthSize = 4

func beginItem(b []byte, k Kind) (_ []byte, start int) {
	b = append(b, byte(k), 0, 0, 0, 0)
	return b, len(b)
}

func endItem(b []byte, start int) []byte {
	n := uint64(len(b) - start)
	if n >= 1<<(7*lengthSize) {
		panic("state: item too long") // proposers cut far below this
	}
	for i := range lengthSize {
		c := byte(n>>(7*i)) & 0x7f
		if i < lengthSize-1 {
			c |= 0x80
		}
		b[start-lengthSize+i] = c
	}
	return b
}

// Entry is a list of one or more items, as one raft entry carries them. It
// returns the complete entry.
func Entry(items ...[]byte) []byte {
	b := AppendHeader(nil)
	for _, it := range items {
		b = append(b, it...)
	}
	return b
}

// Bootstrap founds the group.
type Bootstrap struct {
	GroupName string
	// Lineage tells this history from any other of the same group name. The
	// proposer picks it at random; never 0.
	Lineage uint64
	// Rules is the version of the decision rules, see RulesVersion.
	Rules uint64
	// Primary is the id of the member that is the first primary, 0 for none yet.
	Primary uint64
	// Replicas is how many replicas the log was begun with: 1..Replicas. Members
	// claim them by their first Join.
	Replicas uint64
	// Settings are the founder's that every member must share, one name=value a
	// line.
	Settings string
	// StartN is the highest group transaction number that the founding member
	// brings; numbering goes on after it.
	StartN uint64
	// Base is the founding member's gtid_executed as text: what whoever joins
	// must have too, besides what the group ordered. At most MaxBase bytes.
	Base string
}

// MaxBase bounds Bootstrap.Base, in bytes. A longer one makes the item
// malformed.
const MaxBase = 1 << 20

// AppendItem appends the item to an entry.
func (x *Bootstrap) AppendItem(b []byte) []byte {
	var f []byte
	f = appendString(f, 1, x.GroupName)
	f = appendUint(f, 2, x.Lineage)
	f = appendUint(f, 3, x.Rules)
	f = appendUint(f, 4, x.Primary)
	f = appendUint(f, 5, x.StartN)
	f = appendString(f, 6, x.Base)
	f = appendUint(f, 7, x.Replicas)
	f = appendString(f, 8, x.Settings)
	return appendItem(b, KindBootstrap, f)
}

func (x *Bootstrap) decode(b []byte) error {
	err := fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.GroupName = string(raw)
		case 2:
			x.Lineage = num
		case 3:
			x.Rules = num
		case 4:
			x.Primary = num
		case 5:
			x.StartN = num
		case 6:
			x.Base = string(raw)
		case 7:
			x.Replicas = num
		case 8:
			x.Settings = string(raw)
		}
	})
	switch {
	case err != nil:
	case len(x.Base) > MaxBase:
		err = fmt.Errorf("%w: base of %d bytes", ErrMalformed, len(x.Base))
	case x.Replicas > MaxMembers:
		err = fmt.Errorf("%w: %d replicas", ErrMalformed, x.Replicas)
	}
	return err
}

// MemberInfo describes a member to the others. It is replaced as a whole by
// each Join.
type MemberInfo struct {
	// UUID is the server_uuid of the member's mysqld.
	UUID string
	// ServerVersion is as 90704 for 9.7.4.
	ServerVersion uint64
	// Weight is group_replication_member_weight, 0..MaxWeight.
	Weight uint64
	// MysqldAddress is host:port of the mysqld, for other members' sessions.
	MysqldAddress string
	// ClientAddress is host:port where the proxy accepts clients.
	ClientAddress string
	// HTTPAddress is host:port of the member's HTTP server.
	HTTPAddress string
	// PeerAddress is host:port for other members' requests.
	PeerAddress string
	// PeerToken authenticates these requests.
	PeerToken string
	// CohortVersion is the release of the program.
	CohortVersion string
	// MysqldVersion is the mysqld's own version string.
	MysqldVersion string
	// ServerID is mysqld's server_id.
	ServerID uint64
	// LogAddress is where the others reach the member's log.
	LogAddress string
}

func (x *MemberInfo) append(f []byte) []byte {
	f = appendString(f, 1, x.UUID)
	f = appendUint(f, 2, x.ServerVersion)
	f = appendUint(f, 3, x.Weight)
	f = appendString(f, 4, x.MysqldAddress)
	f = appendString(f, 5, x.ClientAddress)
	f = appendString(f, 6, x.HTTPAddress)
	f = appendString(f, 7, x.PeerAddress)
	f = appendString(f, 8, x.PeerToken)
	f = appendString(f, 9, x.CohortVersion)
	f = appendString(f, 10, x.MysqldVersion)
	f = appendUint(f, 11, x.ServerID)
	return appendString(f, 12, x.LogAddress)
}

func (x *MemberInfo) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.UUID = string(raw)
		case 2:
			x.ServerVersion = num
		case 3:
			x.Weight = num
		case 4:
			x.MysqldAddress = string(raw)
		case 5:
			x.ClientAddress = string(raw)
		case 6:
			x.HTTPAddress = string(raw)
		case 7:
			x.PeerAddress = string(raw)
		case 8:
			x.PeerToken = string(raw)
		case 9:
			x.CohortVersion = string(raw)
		case 10:
			x.MysqldVersion = string(raw)
		case 11:
			x.ServerID = num
		case 12:
			x.LogAddress = string(raw)
		}
	})
}

// Join begins a new incarnation of a member.
type Join struct {
	Member uint64
	// Replica is the replica of the log that the member runs. A Join counts only
	// while it is the member's.
	Replica uint64
	// Nonce makes a Join that is proposed again do nothing; not 0.
	Nonce uint64
	Info  MemberInfo
}

// AppendItem appends the item to an entry.
func (x *Join) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Nonce)
	f = appendString(f, 3, string(x.Info.append(nil)))
	f = appendUint(f, 4, x.Replica)
	return appendItem(b, KindJoin, f)
}

func (x *Join) decode(b []byte) error {
	var info []byte
	err := fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Nonce = num
		case 3:
			info = raw
		case 4:
			x.Replica = num
		}
	})
	if err != nil {
		return err
	}
	return x.Info.decode(info)
}

// SetState changes the state of a member. It counts only while Incarnation is
// the member's, so that a report about an earlier life does no harm, and does
// not bring back an incarnation that is OFFLINE or in ERROR.
type SetState struct {
	Member      uint64
	Incarnation uint64
	State       MemberState
	// Epoch, when not 0, says that the member is the primary of this epoch and
	// open for writes. The item counts only while that is so.
	Epoch uint64
	// Nonce, when not 0, is that of the Join that began the incarnation, which it
	// names as well: who has not applied its own Join yet does not know Incarnation.
	Nonce uint64
}

// AppendItem appends the item to an entry.
func (x *SetState) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Incarnation)
	f = appendUint(f, 3, uint64(x.State))
	f = appendUint(f, 4, x.Epoch)
	f = appendUint(f, 5, x.Nonce)
	return appendItem(b, KindState, f)
}

func (x *SetState) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Incarnation = num
		case 3:
			x.State = MemberState(min(num, 255))
		case 4:
			x.Epoch = num
		case 5:
			x.Nonce = num
		}
	})
}

// Primary appoints another primary, which must be ONLINE. It counts only while
// Epoch is the current one, so that of several appointments made on the same view
// the first wins. Without one, elect does what is needed.
type Primary struct {
	Member uint64
	Epoch  uint64
}

// AppendItem appends the item to an entry.
func (x *Primary) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Epoch)
	return appendItem(b, KindPrimary, f)
}

func (x *Primary) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Epoch = num
		}
	})
}

// Abort decides that the named transactions do not commit, unless they were
// decided before.
type Abort struct {
	XIDs []string
	// Incarnation is the only one that may propose them, 0 when not known. The
	// verdicts have to be kept until it ends.
	Incarnation uint64
}

// AppendItem appends the item to an entry.
func (x *Abort) AppendItem(b []byte) []byte {
	var f []byte
	for _, id := range x.XIDs {
		f = appendString(f, 1, id)
	}
	f = appendUint(f, 2, x.Incarnation)
	return appendItem(b, KindAbort, f)
}

func (x *Abort) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.XIDs = append(x.XIDs, string(raw))
		case 2:
			x.Incarnation = num
		}
	})
}

// Watermark reports how far a member is. Values never fall.
type Watermark struct {
	Member      uint64
	Incarnation uint64
	// Applied: 1..Applied are visible on the member's mysqld.
	Applied uint64
	// Stable: 1..Stable are on the stable storage of the member's mysqld, so
	// their verdicts need not be remembered for it.
	Stable uint64
	// Low: every later proposal of this member has a snapshot with 1..Low.
	Low uint64
}

// AppendItem appends the item to an entry.
func (x *Watermark) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Incarnation)
	f = appendUint(f, 3, x.Applied)
	f = appendUint(f, 4, x.Stable)
	f = appendUint(f, 5, x.Low)
	return appendItem(b, KindWatermark, f)
}

func (x *Watermark) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Incarnation = num
		case 3:
			x.Applied = num
		case 4:
			x.Stable = num
		case 5:
			x.Low = num
		}
	})
}

// Rules raises the version of the decision rules. It is proposed once every
// member runs a release that knows the version.
type Rules struct{ Version uint64 }

// AppendItem appends the item to an entry.
func (x *Rules) AppendItem(b []byte) []byte {
	return appendItem(b, KindRules, appendUint(nil, 1, x.Version))
}

func (x *Rules) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		if tag == 1 {
			x.Version = num
		}
	})
}

// Admit asks for a replica of the log for a member that has none, or has lost
// what it had: it goes on under a new id, since a replica that forgot its log
// could vote twice.
type Admit struct {
	Member uint64
	// Nonce makes an Admit that is proposed again do nothing; not 0.
	Nonce uint64
	UUID  string
	// ServerID is mysqld's server_id, 0 for unknown.
	ServerID uint64
	// Address is where the others reach the member's log.
	Address string
}

// AppendItem appends the item to an entry.
func (x *Admit) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Nonce)
	f = appendString(f, 3, x.UUID)
	f = appendUint(f, 4, x.ServerID)
	f = appendString(f, 5, x.Address)
	return appendItem(b, KindAdmit, f)
}

func (x *Admit) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, raw []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Nonce = num
		case 3:
			x.UUID = string(raw)
		case 4:
			x.ServerID = num
		case 5:
			x.Address = string(raw)
		}
	})
}

// Evict takes the replica of a member that is OFFLINE or in ERROR out of the
// log. It counts only while Replica and Incarnation are the member's, so that one
// that came back meanwhile stays.
type Evict struct {
	Member      uint64
	Replica     uint64
	Incarnation uint64
}

// AppendItem appends the item to an entry.
func (x *Evict) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Replica)
	f = appendUint(f, 3, x.Incarnation)
	return appendItem(b, KindEvict, f)
}

func (x *Evict) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Replica = num
		case 3:
			x.Incarnation = num
		}
	})
}

// MaxWeight is the highest weight of a member.
const MaxWeight = 100

// Weight changes a member's weight in elections. It counts only while Incarnation
// is the member's: a later Join brings the weight of its time.
type Weight struct {
	Member      uint64
	Incarnation uint64
	Weight      uint64
}

// AppendItem appends the item to an entry.
func (x *Weight) AppendItem(b []byte) []byte {
	f := appendUint(nil, 1, x.Member)
	f = appendUint(f, 2, x.Incarnation)
	f = appendUint(f, 3, x.Weight)
	return appendItem(b, KindWeight, f)
}

func (x *Weight) decode(b []byte) error {
	return fields(b, func(tag int, num uint64, _ []byte) {
		switch tag {
		case 1:
			x.Member = num
		case 2:
			x.Incarnation = num
		case 3:
			x.Weight = min(num, MaxWeight)
		}
	})
}
