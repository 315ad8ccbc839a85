package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
)

// A record of the log: the checksum of what follows, until when, the key.
const recordSize = 4 + 8 + keySize

// forgotten stands in the place of until: the key that was kept before is not any more.
const forgotten = 0

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func putRecord(b *[recordSize]byte, k logKey, until int64) {
	binary.LittleEndian.PutUint64(b[4:], uint64(until))
	copy(b[12:], k[:])
	binary.LittleEndian.PutUint32(b[:], crc32.Checksum(b[4:], castagnoli))
}

// readRecord: not whole: a process ended before it was written, or while it was; nobody was told that its key is kept.
func readRecord(b *[recordSize]byte) (k logKey, until int64, whole bool) {
	whole = binary.LittleEndian.Uint32(b[:]) == crc32.Checksum(b[4:], castagnoli)
	copy(k[:], b[12:])
	return k, int64(binary.LittleEndian.Uint64(b[4:])), whole
}

// logNames are the files of the log, which take turns.
var logNames = [2]string{"0.log", "1.log"}

// openOwn opens a file of the log's folder, or makes it. What a link there leads to is somebody else's, and would be emptied.
func (l *lite) openOwn(dir *os.Root, name string) (*os.File, error) {
	return l.openIn(dir, name, noLink)
}

// openKeyFile opens a file of the log with what it holds.
func (l *lite) openKeyFile(dir *os.Root, name string) (*keyFile, error) {
	f, err := l.openOwn(dir, name)
	if err != nil {
		return nil, err
	}
	kf := &keyFile{f: f}
	if kf.keys, err = readKeys(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return kf, nil
}

// readKeys reads the keys of a file that somebody may be writing to.
func readKeys(f *os.File) (map[logKey]int64, error) {
	keys := map[logKey]int64{}
	err := eachRecord(f, func(_ int64, b *[recordSize]byte) bool {
		k, until, whole := readRecord(b)
		switch {
		case !whole:
		case until == forgotten:
			delete(keys, k)
		default:
			keys[k] = until
		}
		return true
	})
	return keys, err
}

// eachRecord reads the records of a file with their places, whole or not, until it is told to stop.
func eachRecord(f *os.File, do func(at int64, b *[recordSize]byte) (more bool)) error {
	all := io.NewSectionReader(f, 0, 1<<62)
	var b [64 * recordSize]byte
	for place := int64(0); ; {
		n, err := io.ReadFull(all, b[:])
		for at := 0; at+recordSize <= n; at += recordSize {
			if !do(place, (*[recordSize]byte)(b[at:])) {
				return nil
			}
			place += recordSize
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// empty makes a file ready for the next keys, once SQLite has those that it held.
func (f *keyFile) empty() error {
	f.writes.Wait()
	return f.f.Truncate(0)
}

// lock takes a lock without waiting, or makes one that there is another.
func lock(f *os.File, how int) (ok bool, err error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}

func unlock(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		return fmt.Errorf("unlocking %s: %w", f.Name(), err)
	}
	return nil
}
