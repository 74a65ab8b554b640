package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"cohort/consensus/state"
	"cohort/internal/binlog/groupbinlog"
	"cohort/internal/durable"
)

// A checkpoint is one file, replaced as a whole: magic, version, the position
// in the group binlog, the state, and a CRC-32C of all that. It is written only
// after what it refers to (group binlog, spooled fragments) is durable, so a
// member that finds it finds everything it names.
const (
	checkpointName    = "state"
	checkpointMagic   = "CHRTSTAT"
	checkpointVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeCheckpoint(st *state.State, pos groupbinlog.Position) []byte {
	b := append([]byte(nil), checkpointMagic...)
	b = append(b, checkpointVersion)
	b = binary.AppendUvarint(b, uint64(pos.File))
	b = binary.AppendUvarint(b, uint64(pos.Offset))
	b = binary.AppendUvarint(b, pos.LastN)
	b = st.Encode(b)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeCheckpoint(b []byte) (*state.State, groupbinlog.Position, error) {
	var pos groupbinlog.Position
	if len(b) < len(checkpointMagic)+5 || string(b[:len(checkpointMagic)]) != checkpointMagic {
		return nil, pos, fmt.Errorf("%w: no checkpoint", ErrCorrupt)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, pos, fmt.Errorf("%w: checksum of the checkpoint", ErrCorrupt)
	}
	rest := body[len(checkpointMagic):]
	if rest[0] != checkpointVersion {
		return nil, pos, fmt.Errorf("%w: checkpoint format %d", state.ErrUnsupported, rest[0])
	}
	rest = rest[1:]
	var num [3]uint64
	for i := range num {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, pos, fmt.Errorf("%w: position in the checkpoint", ErrCorrupt)
		}
		num[i], rest = v, rest[n:]
	}
	if num[0] > 1<<32-1 || num[1] > 1<<62 {
		return nil, pos, fmt.Errorf("%w: position in the checkpoint", ErrCorrupt)
	}
	pos = groupbinlog.Position{File: uint32(num[0]), Offset: int64(num[1]), LastN: num[2]}
	st, err := state.Decode(rest)
	if err != nil {
		return nil, pos, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if st.LastN() != pos.LastN {
		return nil, pos, fmt.Errorf("%w: state up to %d, group binlog up to %d", ErrCorrupt, st.LastN(), pos.LastN)
	}
	return st, pos, nil
}

// loadCheckpoint returns the stored state, or a new one when there is none.
func loadCheckpoint(dir string) (*state.State, groupbinlog.Position, error) {
	b, err := os.ReadFile(filepath.Join(dir, checkpointName))
	if errors.Is(err, fs.ErrNotExist) {
		return state.New(), groupbinlog.Position{}, nil
	}
	if err != nil {
		return nil, groupbinlog.Position{}, fmt.Errorf("checkpoint: %w", err)
	}
	return decodeCheckpoint(b)
}

// storeCheckpoint replaces the checkpoint so that a crash leaves the old one or
// the new one.
func storeCheckpoint(dir string, b []byte) error {
	if err := durable.WriteFile(filepath.Join(dir, checkpointName), b, 0o640); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
