package state

import "fmt"

// The items by which members come, go and are appointed; see item.go.

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
	return appendItem(b, KindBootstrap, x.layout().append(nil))
}

func (x *Bootstrap) decode(b []byte) error {
	err := x.layout().decode(b)
	switch {
	case err != nil:
	case len(x.Base) > MaxBase:
		err = fmt.Errorf("%w: base of %d bytes", ErrMalformed, len(x.Base))
	case x.Replicas > MaxMembers:
		err = fmt.Errorf("%w: %d replicas", ErrMalformed, x.Replicas)
	}
	return err
}

func (x *Bootstrap) layout() layout {
	return layout{text(&x.GroupName), number(&x.Lineage), number(&x.Rules), number(&x.Primary), number(&x.StartN), text(&x.Base),
		number(&x.Replicas), text(&x.Settings)}
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

func (x *MemberInfo) append(b []byte) []byte { return x.layout().append(b) }

func (x *MemberInfo) decode(b []byte) error { return x.layout().decode(b) }

func (x *MemberInfo) layout() layout {
	return layout{text(&x.UUID), number(&x.ServerVersion), number(&x.Weight), text(&x.MysqldAddress), text(&x.ClientAddress), text(&x.HTTPAddress),
		text(&x.PeerAddress), text(&x.PeerToken), text(&x.CohortVersion), text(&x.MysqldVersion), number(&x.ServerID), text(&x.LogAddress)}
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
	info := string(x.Info.append(nil))
	return appendItem(b, KindJoin, x.layout(&info).append(nil))
}

func (x *Join) decode(b []byte) error {
	var info string
	if err := x.layout(&info).decode(b); err != nil {
		return err
	}
	return x.Info.decode([]byte(info))
}

func (x *Join) layout(info *string) layout {
	return layout{number(&x.Member), number(&x.Nonce), text(info), number(&x.Replica)}
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
	st := uint64(x.State)
	return appendItem(b, KindState, x.layout(&st).append(nil))
}

func (x *SetState) decode(b []byte) error {
	var st uint64
	err := x.layout(&st).decode(b)
	x.State = MemberState(min(st, 255))
	return err
}

func (x *SetState) layout(st *uint64) layout {
	return layout{number(&x.Member), number(&x.Incarnation), number(st), number(&x.Epoch), number(&x.Nonce)}
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
	return appendItem(b, KindPrimary, x.layout().append(nil))
}

func (x *Primary) decode(b []byte) error { return x.layout().decode(b) }

func (x *Primary) layout() layout {
	return layout{number(&x.Member), number(&x.Epoch)}
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
	return appendItem(b, KindWatermark, x.layout().append(nil))
}

func (x *Watermark) decode(b []byte) error { return x.layout().decode(b) }

func (x *Watermark) layout() layout {
	return layout{number(&x.Member), number(&x.Incarnation), number(&x.Applied), number(&x.Stable), number(&x.Low)}
}

// Rules raises the version of the decision rules. It is proposed once every
// member runs a release that knows the version.
type Rules struct{ Version uint64 }

// AppendItem appends the item to an entry.
func (x *Rules) AppendItem(b []byte) []byte {
	return appendItem(b, KindRules, x.layout().append(nil))
}

func (x *Rules) decode(b []byte) error { return x.layout().decode(b) }

func (x *Rules) layout() layout {
	return layout{number(&x.Version)}
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
	return appendItem(b, KindAdmit, x.layout().append(nil))
}

func (x *Admit) decode(b []byte) error { return x.layout().decode(b) }

func (x *Admit) layout() layout {
	return layout{number(&x.Member), number(&x.Nonce), text(&x.UUID), number(&x.ServerID), text(&x.Address)}
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
	return appendItem(b, KindEvict, x.layout().append(nil))
}

func (x *Evict) decode(b []byte) error { return x.layout().decode(b) }

func (x *Evict) layout() layout {
	return layout{number(&x.Member), number(&x.Replica), number(&x.Incarnation)}
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
	return appendItem(b, KindWeight, x.layout().append(nil))
}

func (x *Weight) decode(b []byte) error {
	err := x.layout().decode(b)
	x.Weight = min(x.Weight, MaxWeight)
	return err
}

func (x *Weight) layout() layout {
	return layout{number(&x.Member), number(&x.Incarnation), number(&x.Weight)}
}
