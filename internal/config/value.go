package config

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The MySQL error numbers a bad value carries.
const (
	erWrongValueForVar = 1231 // also the number of the plugin's own range texts
	erWrongTypeForVar  = 1232
	erConfiguration    = 3092 // the plugin's, for an allowlist
)

// ValueError says which value a key cannot take, in the words and with the
// number MySQL has for SET GLOBAL.
type ValueError struct {
	Key, Value string
	// Number is the MySQL error number; State its SQLSTATE.
	Number uint16
	State  string
	// Text is the message without the key's source.
	Text string
}

// Error implements error.
func (e *ValueError) Error() string { return e.Text }

// Unwrap makes errors.Is(err, ErrBadValue) true.
func (e *ValueError) Unwrap() error { return ErrBadValue }

func bad(k Key, value, format string, args ...any) error {
	return &ValueError{Key: k.Name, Value: value, Number: erWrongValueForVar, State: "42000", Text: fmt.Sprintf(format, args...)}
}

// badList is bad with the number that the plugin has for allowlists.
func badList(k Key, value, format string, args ...any) error {
	return &ValueError{Key: k.Name, Value: value, Number: erConfiguration, State: "HY000", Text: fmt.Sprintf(format, args...)}
}

func cannot(k Key, value string) error {
	if k.Secret {
		value = "********"
	}
	return bad(k, value, "Variable '%s' can't be set to the value of '%s'", k.Name, value)
}

func wrongType(k Key, value string) error {
	return &ValueError{Key: k.Name, Value: value, Number: erWrongTypeForVar, State: "42000",
		Text: fmt.Sprintf("Incorrect argument type to variable '%s'", k.Name)}
}

// assign parses value for k and stores it.
func (c *Config) assign(k Key, value string) error {
	field := reflect.ValueOf(c).Elem().Field(k.index)
	switch k.kind {
	case kindBool:
		b, ok := parseBool(value)
		if !ok {
			return cannot(k, value)
		}
		field.SetBool(b)
	case kindUint, kindSeconds:
		n, err := parseNumber(k, value)
		if err != nil {
			return err
		}
		if k.kind == kindSeconds {
			field.SetInt(int64(time.Duration(n) * time.Second))
		} else {
			field.SetUint(n)
		}
	case kindEnum:
		w, ok := parseEnum(k, value)
		if !ok {
			return cannot(k, value)
		}
		field.SetString(w)
	case kindList:
		list := splitList(value)
		for _, s := range list {
			if !validHostPort(s, false) {
				return cannot(k, value)
			}
		}
		field.Set(reflect.ValueOf(list))
	default:
		if err := checkString(k, value); err != nil {
			return err
		}
		field.SetString(value)
	}
	return nil
}

func parseBool(s string) (b, ok bool) {
	switch strings.ToUpper(s) {
	case "ON", "TRUE", "1":
		return true, true
	case "OFF", "FALSE", "0":
		return false, true
	}
	return false, false
}

// parseEnum takes a word in any case, or, as MySQL does, its index where the
// words are the plugin's own.
func parseEnum(k Key, s string) (string, bool) {
	for _, w := range k.Words {
		if strings.EqualFold(w, s) {
			return w, true
		}
	}
	if i, err := strconv.Atoi(s); err == nil && i >= 0 && i < len(k.Words) && strings.HasPrefix(k.Name, "group_replication_") {
		return k.Words[i], true
	}
	return "", false
}

// parseNumber takes a decimal with an optional suffix K, M, G, T, P or E
// (powers of 1024), as MySQL's option files do.
func parseNumber(k Key, s string) (uint64, error) {
	digits, shift := s, 0
	if n := len(s); n > 1 {
		if i := strings.IndexByte("KMGTPE", s[n-1]&^0x20); i >= 0 {
			digits, shift = s[:n-1], 10*(i+1)
		}
	}
	unsigned := strings.TrimPrefix(digits, "-")
	if unsigned == "" || strings.Trim(unsigned, "0123456789") != "" {
		return 0, wrongType(k, s)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n>>(64-shift) != 0 || n<<shift < k.Min || n<<shift > k.Max {
		return 0, outOfRange(k, s)
	}
	return n << shift, nil
}

func outOfRange(k Key, s string) error {
	switch k.Name {
	case "group_replication_compression_threshold":
		return bad(k, s, "The value %s is not within the range of accepted values for the option %s!", s, k.Name)
	case "group_replication_gtid_assignment_block_size": // sic
		return bad(k, s, "The value %s is not within the range of accepted values for the option %s.The value must be between %d and %d inclusive.", s, k.Name, k.Min, k.Max)
	case "group_replication_recovery_zstd_compression_level":
		return bad(k, s, "The value '%s' is invalid for %s option.", s, k.Name)
	case "group_replication_communication_max_message_size":
		return bad(k, s, "The value %s is not within the range of accepted values for the %s option. Use 0 to disable message fragmentation, or specify a value up to %d.", s, k.Name, k.Max)
	}
	return bad(k, s, "The value %s is not within the range of accepted values for the option %s. The value must be between %d and %d inclusive.", s, k.Name, k.Min, k.Max)
}

func checkString(k Key, s string) error {
	if strings.ContainsRune(s, 0) {
		return cannot(k, s)
	}
	if s == "" {
		return nil // not given; Validate knows what is required
	}
	switch k.check {
	case "uuid":
		if len(s) > 36 {
			return bad(k, s, "The %s is not a valid UUID, its length is too big", k.Name)
		}
		if !ValidUUID(s) {
			return bad(k, s, "The %s is not a valid UUID", k.Name)
		}
	case "hostport":
		if !validHostPort(s, false) {
			return cannot(k, s)
		}
	case "listen":
		if !validHostPort(s, true) {
			return cannot(k, s)
		}
	case "allowlist":
		return checkAllowlist(k, s)
	case "compression":
		for _, w := range strings.Split(s, ",") {
			if !slices.Contains([]string{"zlib", "zstd", "uncompressed"}, w) {
				return bad(k, s, "The value '%s' is invalid for %s option.", s, k.Name)
			}
		}
	}
	return nil
}

// ValidUUID reports whether s is a UUID in the 8-4-4-4-12 form that the plugin
// accepts for a group name.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		ch := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if ch != '-' {
				return false
			}
		} else if !(ch >= '0' && ch <= '9' || ch|0x20 >= 'a' && ch|0x20 <= 'f') {
			return false
		}
	}
	return true
}

// validHostPort accepts host:port, with IPv6 hosts in brackets. To listen, the
// host may be empty and the port 0 (the system chooses); to be reached, neither.
func validHostPort(s string, listen bool) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" && !listen || strings.ContainsAny(host, " \t,/@") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (n != 0 || listen)
}

func checkAllowlist(k Key, s string) error {
	list := splitList(s)
	for _, e := range list {
		if strings.EqualFold(e, "AUTOMATIC") {
			if len(list) > 1 {
				return badList(k, s, "The %s is invalid. Make sure that when specifying \"AUTOMATIC\" the list contains no other values.", k.Name)
			}
			continue
		}
		addr, _, masked := strings.Cut(e, "/")
		if _, err := netip.ParsePrefix(e); masked && err == nil {
			continue
		}
		if _, err := netip.ParseAddr(addr); err == nil && !masked {
			continue
		}
		if _, err := netip.ParseAddr(addr); err != nil && validHostName(addr) && (!masked || maskNumber(e)) {
			continue
		}
		return badList(k, s, "The %s is invalid.", k.Name)
	}
	return nil
}

func maskNumber(e string) bool {
	_, mask, _ := strings.Cut(e, "/")
	n, err := strconv.Atoi(mask)
	return err == nil && n >= 0 && n <= 128
}

// validHostName wants a letter in the last label, so that a mistyped address is
// not taken for a name.
func validHostName(s string) bool {
	if s == "" || strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return false
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

func splitList(s string) []string {
	var out []string
	for _, e := range strings.Split(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}
