// Command app is the ABCI application of the network test: every validator signs a vote extension at
// every height, and each proposer writes down the extensions and signatures that it was given for the
// last height, so that the test can verify them without trusting CometBFT.
//
// An extension is the SHA-256 of height and block hash, followed by 8 random bytes: like the price
// feeds that extensions carry on live chains it is not empty, can be checked, and differs at every call.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cometbft/cometbft/abci/server"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/libs/log"
)

const nonceLength = 8

// app keeps only the height in its state; a node that restarts replays the blocks to it.
type app struct {
	abci.BaseApplication

	lock    sync.Mutex
	height  int64
	hash    []byte
	records *json.Encoder
}

// record is one line of the output: the extended votes of one height, as the proposer of the next one
// received them.
type record struct {
	Height int64  `json:"height"`
	Round  int32  `json:"round"`
	Votes  []vote `json:"votes"`
}

// vote is one validator's part in a record. The byte slices are printed in base64.
type vote struct {
	Address            []byte `json:"address"`
	Flag               string `json:"flag"`
	Extension          []byte `json:"extension"`
	ExtensionSignature []byte `json:"extension_signature"`
}

func expectedPrefix(height int64, hash []byte) []byte {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(height))
	digest := sha256.Sum256(append(number[:], hash...))
	return digest[:]
}

func (a *app) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	return &abci.ResponseInfo{LastBlockHeight: a.height, LastBlockAppHash: a.hash}, nil
}

func (a *app) PrepareProposal(_ context.Context, req *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	votes := make([]vote, 0, len(req.LocalLastCommit.Votes))
	for _, v := range req.LocalLastCommit.Votes {
		votes = append(votes, vote{
			Address:            v.Validator.Address,
			Flag:               v.BlockIdFlag.String(),
			Extension:          v.VoteExtension,
			ExtensionSignature: v.ExtensionSignature,
		})
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	err := a.records.Encode(record{Height: req.Height - 1, Round: req.LocalLastCommit.Round, Votes: votes})
	return &abci.ResponsePrepareProposal{Txs: req.Txs}, err
}

func (a *app) ExtendVote(_ context.Context, req *abci.RequestExtendVote) (*abci.ResponseExtendVote, error) {
	extension := expectedPrefix(req.Height, req.Hash)
	nonce := make([]byte, nonceLength)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &abci.ResponseExtendVote{VoteExtension: append(extension, nonce...)}, nil
}

func (a *app) VerifyVoteExtension(_ context.Context, req *abci.RequestVerifyVoteExtension) (*abci.ResponseVerifyVoteExtension, error) {
	prefix := expectedPrefix(req.Height, req.Hash)
	status := abci.ResponseVerifyVoteExtension_REJECT
	if len(req.VoteExtension) == len(prefix)+nonceLength && bytes.HasPrefix(req.VoteExtension, prefix) {
		status = abci.ResponseVerifyVoteExtension_ACCEPT
	}
	return &abci.ResponseVerifyVoteExtension{Status: status}, nil
}

func (a *app) FinalizeBlock(_ context.Context, req *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.height = req.Height
	a.hash = expectedPrefix(req.Height, nil)
	results := make([]*abci.ExecTxResult, len(req.Txs))
	for i := range results {
		results[i] = &abci.ExecTxResult{}
	}
	return &abci.ResponseFinalizeBlock{TxResults: results, AppHash: a.hash}, nil
}

func run(address, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	srv, err := server.NewServer(address, "socket", &app{records: json.NewEncoder(file)})
	if err != nil {
		return err
	}
	srv.SetLogger(log.NewTMLogger(log.NewSyncWriter(os.Stdout)))
	if err := srv.Start(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	return srv.Stop()
}

func main() {
	address := flag.String("address", "", "where to listen for the node, for example unix:///tmp/app.sock")
	records := flag.String("records", "", "the file that the extended votes are appended to, one JSON object a line")
	flag.Parse()
	if err := run(*address, *records); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}
