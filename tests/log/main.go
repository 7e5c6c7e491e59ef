// Checks what hsmd exports with code that is not ours: the note and tlog packages of golang.org/x/mod/sumdb.
//
//	log export DIRECTORY VKEY            every tile and entry of an exported log, and consistency with all its smaller trees
//	log proof FILE ENTRY-BASE64 VKEY     a c2sp.org/tlog-proof of one entry
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "log:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "export":
		return export(args[1], args[2])
	case len(args) == 4 && args[0] == "proof":
		return proof(args[1], args[2], args[3])
	}
	return errors.New("usage: log export DIRECTORY VKEY | log proof FILE ENTRY-BASE64 VKEY")
}

// checkpoint opens a signed note and reads the tree from its text.
func checkpoint(text []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func export(directory, vkey string) error {
	text, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := checkpoint(text, vkey)
	if err != nil {
		return err
	}
	// The reader authenticates every tile against the checkpoint's root.
	reader := tlog.TileHashReader(tree, tiles(directory))
	for first := int64(0); first < tree.N; first += 256 {
		entries, err := bundle(directory, first, min(256, tree.N-first))
		if err != nil {
			return err
		}
		for place, entry := range entries {
			index := first + int64(place)
			proof, err := tlog.ProveRecord(tree.N, index, reader)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	for old := int64(1); old <= tree.N; old++ {
		root, err := tlog.TreeHash(old, reader)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(tree.N, old, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, root); err != nil {
			return fmt.Errorf("tree of %d: %w", old, err)
		}
	}
	fmt.Println(tree.N)
	return nil
}

// bundle reads the entries from `first` on: each after its length in two bytes.
func bundle(directory string, first, width int64) ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(directory, "tile", "entries", number(first/256, int(width))))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("the bundle of entry %d is cut off", first)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	if int64(len(entries)) != width {
		return nil, fmt.Errorf("the bundle of entry %d has %d entries, not %d", first, len(entries), width)
	}
	return entries, nil
}

// number is a tile's number as c2sp.org/tlog-tiles writes it; Go's own Path is that of its checksum database.
func number(n int64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width < 256 {
		path += fmt.Sprintf(".p/%d", width)
	}
	return path
}

// tiles reads the tiles of an exported log.
type tiles string

func (tiles) Height() int { return 8 }

func (directory tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := filepath.Join(string(directory), "tile", strconv.Itoa(tile.L), number(tile.N, tile.W))
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) && tile.W < 256 {
			// Another width of a tile that has grown since.
			path = filepath.Join(string(directory), "tile", strconv.Itoa(tile.L), number(tile.N, 256))
			data, err = os.ReadFile(path)
		}
		if err != nil {
			return nil, err
		}
		if len(data) < tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s is too short", path)
		}
		found = append(found, data[:tile.W*tlog.HashSize])
	}
	return found, nil
}

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func proof(file, entry, vkey string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	leaf, err := base64.StdEncoding.DecodeString(entry)
	if err != nil {
		return err
	}
	head, signed, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a c2sp.org/tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var hashes tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		hashes = append(hashes, hash)
	}
	tree, err := checkpoint([]byte(signed), vkey)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
		return err
	}
	fmt.Println(index)
	return nil
}
