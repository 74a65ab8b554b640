package sqlparse

// Mode is what a session's settings make of its SQL text. The zero value is
// the server's default: backslash escapes, double quotes delimit strings, a
// character set in which no trailing byte is an ASCII character.
type Mode struct {
	// ANSIQuotes is sql_mode ANSI_QUOTES: "x" is an identifier.
	ANSIQuotes bool
	// NoBackslashEscapes is sql_mode NO_BACKSLASH_ESCAPES.
	NoBackslashEscapes bool
	// Charset tells how character_set_client forms multi-byte characters.
	Charset Charset
	// Version is the server's version as versioned comments spell it
	// (90704 for 9.7.4); 0 stands for DefaultVersion.
	Version int
}

// DefaultVersion is used where Mode.Version is 0.
const DefaultVersion = 90700

// Charset is the family of character sets a text is in, as far as it matters
// to a tokenizer: in some, the second byte of a character may look like a
// backslash or a back quote.
type Charset uint8

// Families of character sets.
const (
	// CharsetSafe holds every set whose trailing bytes are never ASCII:
	// single-byte sets, utf8mb3, utf8mb4, the EUC family.
	CharsetSafe    Charset = iota
	CharsetSJIS            // sjis, cp932
	CharsetBig5            // big5
	CharsetGBK             // gbk
	CharsetGB18030         // gb18030
)

// CharsetByName maps character_set_client to its family.
func CharsetByName(name string) Charset {
	switch name {
	case "sjis", "cp932":
		return CharsetSJIS
	case "big5":
		return CharsetBig5
	case "gbk":
		return CharsetGBK
	case "gb18030":
		return CharsetGB18030
	}
	return CharsetSafe
}

// charLen is the length of the character that starts at b[i], whose byte is
// at least 0x80; 1 where the bytes form no character.
func (c Charset) charLen(b []byte, i int) int {
	if c == CharsetSafe || i+1 >= len(b) {
		return 1
	}
	h, t := b[i], b[i+1]
	switch c {
	case CharsetSJIS:
		if (h >= 0x81 && h <= 0x9f || h >= 0xe0 && h <= 0xfc) && (t >= 0x40 && t <= 0x7e || t >= 0x80 && t <= 0xfc) {
			return 2
		}
	case CharsetBig5:
		if h >= 0xa1 && h <= 0xf9 && (t >= 0x40 && t <= 0x7e || t >= 0xa1 && t <= 0xfe) {
			return 2
		}
	case CharsetGBK:
		if h >= 0x81 && h <= 0xfe && (t >= 0x40 && t <= 0x7e || t >= 0x80 && t <= 0xfe) {
			return 2
		}
	case CharsetGB18030:
		if h < 0x81 || h > 0xfe {
			return 1
		}
		if t >= 0x40 && t <= 0x7e || t >= 0x80 && t <= 0xfe {
			return 2
		}
		if t >= 0x30 && t <= 0x39 && i+3 < len(b) && b[i+2] >= 0x81 && b[i+2] <= 0xfe && b[i+3] >= 0x30 && b[i+3] <= 0x39 {
			return 4
		}
	}
	return 1
}

// Kind is the kind of a token.
type Kind uint8

// Kinds of tokens.
const (
	EOF     Kind = iota
	Word         // an unquoted identifier or keyword
	Quoted       // a quoted identifier, quotes included
	String       // a string literal, quotes included
	Number       // a number
	UserVar      // @name, @'name'
	SysVar       // @@name, @@scope.name
	Param        // ?
	Op           // any other single byte
	Semi         // ;
	Bad          // an unterminated string, identifier or comment: the rest of the text
)

// Token is a piece of the text: Start and End are byte offsets.
type Token struct {
	Kind       Kind
	Start, End int
}

// Scanner cuts a text into tokens as the server's lexer does. It allocates
// nothing. Comments are skipped; the content of a versioned comment that
// applies to Mode.Version is scanned as if it stood in the text.
type Scanner struct {
	src  []byte
	pos  int
	mode Mode
	// inVersioned: a versioned comment that applies is open.
	inVersioned bool
	// versionedSeen: at least one versioned comment was entered.
	versionedSeen bool
}

// NewScanner returns a scanner over src.
func NewScanner(src []byte, mode Mode) Scanner {
	if mode.Version == 0 {
		mode.Version = DefaultVersion
	}
	return Scanner{src: src, mode: mode}
}

// byte classes
const (
	cSpace = 1 << iota
	cIdent
	cDigit
)

var class [256]uint8

func init() {
	for _, c := range " \t\n\v\f\r" {
		class[c] |= cSpace
	}
	for c := 0; c < 256; c++ {
		switch {
		case c >= '0' && c <= '9':
			class[c] |= cIdent | cDigit
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '$', c >= 0x80:
			class[c] |= cIdent
		}
	}
}

// Text returns the bytes of a token.
func (s *Scanner) Text(t Token) []byte { return s.src[t.Start:t.End] }

// Next returns the next token; EOF again and again at the end.
func (s *Scanner) Next() Token {
	src := s.src
	for s.pos < len(src) {
		c := src[s.pos]
		switch {
		case class[c]&cSpace != 0:
			s.pos++
		case c == '#':
			s.skipLine()
		case c == '-' && s.peek(1) == '-' && s.dashComment():
			s.skipLine()
		case c == '/' && s.peek(1) == '*':
			start := s.pos
			if !s.comment() {
				s.pos = len(src)
				return Token{Bad, start, len(src)}
			}
		case c == '*' && s.inVersioned && s.peek(1) == '/':
			s.inVersioned = false
			s.pos += 2
		default:
			return s.token(c)
		}
	}
	return Token{EOF, len(src), len(src)}
}

func (s *Scanner) peek(n int) byte {
	if s.pos+n < len(s.src) {
		return s.src[s.pos+n]
	}
	return 0
}

// dashComment: "--" starts a comment only before white space, a control
// character or the end.
func (s *Scanner) dashComment() bool {
	if s.pos+2 >= len(s.src) {
		return true
	}
	c := s.src[s.pos+2]
	return class[c]&cSpace != 0 || c < 0x20 || c == 0x7f
}

func (s *Scanner) skipLine() {
	for s.pos < len(s.src) && s.src[s.pos] != '\n' {
		s.pos++
	}
}

// comment skips a comment, or enters a versioned one. It reports false when
// the comment has no end.
func (s *Scanner) comment() bool {
	src := s.src
	p := s.pos + 2
	if p < len(src) && src[p] == '!' && !s.inVersioned {
		p++
		n, v := 0, 0
		for n < 6 && p+n < len(src) && class[src[p+n]]&cDigit != 0 {
			v = v*10 + int(src[p+n]-'0')
			n++
		}
		if n < 5 { // no version: always applies, and digits belong to the text
			s.pos, s.inVersioned, s.versionedSeen = p, true, true
			return true
		}
		if v <= s.mode.Version {
			s.pos, s.inVersioned, s.versionedSeen = p+n, true, true
			return true
		}
		return s.skipComment(p, true)
	}
	return s.skipComment(p, false)
}

// skipComment moves behind the end of a comment whose content starts at p.
// Inside a versioned comment that does not apply, one level of ordinary
// comments nests.
func (s *Scanner) skipComment(p int, nest bool) bool {
	src := s.src
	for p+1 < len(src) {
		if src[p] == '*' && src[p+1] == '/' {
			s.pos = p + 2
			return true
		}
		if nest && src[p] == '/' && src[p+1] == '*' {
			if !s.skipComment(p+2, false) {
				return false
			}
			p = s.pos
			continue
		}
		p++
	}
	return false
}

func (s *Scanner) token(c byte) Token {
	src, start := s.src, s.pos
	switch {
	case c == '$' && s.mode.Version >= 90000:
		if end, ok := s.dollar(start); ok {
			s.pos = end
			return Token{String, start, end}
		}
		fallthrough
	case class[c]&cIdent != 0:
		return s.word(start)
	case c == '\'':
		return s.quoted(start, c, String)
	case c == '"':
		if s.mode.ANSIQuotes {
			return s.quoted(start, c, Quoted)
		}
		return s.quoted(start, c, String)
	case c == '`':
		return s.quoted(start, c, Quoted)
	case c == '@':
		return s.variable(start)
	case c == '?':
		s.pos++
		return Token{Param, start, s.pos}
	case c == ';':
		s.pos++
		return Token{Semi, start, s.pos}
	case c == '.' && start+1 < len(src) && class[src[start+1]]&cDigit != 0 && (start == 0 || class[src[start-1]]&cIdent == 0 && src[start-1] != '`'):
		s.pos++
		s.number()
		return Token{Number, start, s.pos}
	}
	s.pos++
	return Token{Op, start, s.pos}
}

// word scans an identifier, a keyword or a number. Identifiers may start with
// digits: 1e is one, 1e5 is a number, 1a is an identifier.
func (s *Scanner) word(start int) Token {
	if class[s.src[start]]&cDigit != 0 {
		p := start
		for p < len(s.src) && class[s.src[p]]&cDigit != 0 {
			p++
		}
		var c byte
		if p < len(s.src) {
			c = s.src[p]
		}
		if class[c]&cIdent == 0 || (c == 'e' || c == 'E') && s.exponent(p) {
			s.number()
			return Token{Number, start, s.pos}
		}
	}
	s.identRest()
	return Token{Word, start, s.pos}
}

func (s *Scanner) exponent(p int) bool {
	p++
	if p < len(s.src) && (s.src[p] == '+' || s.src[p] == '-') {
		p++
	}
	return p < len(s.src) && class[s.src[p]]&cDigit != 0
}

func (s *Scanner) number() {
	src, p := s.src, s.pos
	for p < len(src) && class[src[p]]&cDigit != 0 {
		p++
	}
	if p < len(src) && src[p] == '.' {
		p++
		for p < len(src) && class[src[p]]&cDigit != 0 {
			p++
		}
	}
	if p < len(src) && (src[p] == 'e' || src[p] == 'E') && s.exponent(p) {
		p += 2
		for p < len(src) && class[src[p]]&cDigit != 0 {
			p++
		}
	}
	s.pos = p
}

func (s *Scanner) identRest() {
	src, p := s.src, s.pos
	for p < len(src) && class[src[p]]&cIdent != 0 {
		if src[p] >= 0x80 {
			p += s.mode.Charset.charLen(src, p)
			continue
		}
		p++
	}
	s.pos = p
}

func (s *Scanner) quoted(start int, q byte, k Kind) Token {
	src, p := s.src, start+1
	escapes := k == String && !s.mode.NoBackslashEscapes
	for p < len(src) {
		c := src[p]
		switch {
		case c >= 0x80:
			p += s.mode.Charset.charLen(src, p)
		case c == '\\' && escapes:
			p += 2
		case c == q:
			if p+1 < len(src) && src[p+1] == q {
				p += 2
				continue
			}
			s.pos = p + 1
			return Token{k, start, s.pos}
		default:
			p++
		}
	}
	s.pos = len(src)
	return Token{Bad, start, s.pos}
}

// dollar recognises $tag$ … $tag$ (9.0 and later).
func (s *Scanner) dollar(start int) (int, bool) {
	src := s.src
	p := start + 1
	for p < len(src) && class[src[p]]&cIdent != 0 && src[p] != '$' {
		p++
	}
	if p >= len(src) || src[p] != '$' {
		return 0, false
	}
	tag := src[start : p+1]
	for i := p + 1; i+len(tag) <= len(src); i++ {
		if src[i] == '$' && string(src[i:i+len(tag)]) == string(tag) {
			return i + len(tag), true
		}
	}
	return 0, false
}

// variable scans @name, @@name and @@scope.name, each with quotes allowed.
func (s *Scanner) variable(start int) Token {
	k := UserVar
	s.pos++
	if s.peek(0) == '@' {
		k = SysVar
		s.pos++
	}
	s.varName(k == UserVar)
	for k == SysVar && s.peek(0) == '.' {
		s.pos++
		s.varName(false)
	}
	return Token{k, start, s.pos}
}

func (s *Scanner) varName(user bool) {
	switch c := s.peek(0); {
	case c == '`':
		s.quoted(s.pos, c, Quoted)
	case user && (c == '\'' || c == '"'):
		s.quoted(s.pos, c, String)
	default:
		s.identRest()
		// A user variable's name may hold dots.
		for user && s.peek(0) == '.' {
			s.pos++
			s.identRest()
		}
	}
}
