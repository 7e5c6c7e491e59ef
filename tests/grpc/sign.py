"""A stock gRPC client signs a vote: nothing but grpcio, the .proto and the files that hsm-enroll issued.

usage: sign.py PROTO_FOLDER STUBS_FOLDER ADDRESS FOLDER KEY CHAIN
Prints the signature in hexadecimal.
"""

import sys
import time

from grpc_tools import protoc

proto, stubs, address, folder, key, chain = sys.argv[1:]
include = protoc.__file__.rsplit("/", 1)[0] + "/_proto"
arguments = ["protoc", f"-I{proto}", f"-I{include}", f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
if protoc.main([*arguments, "hsm/v1/signer.proto"]) != 0:
    sys.exit("the .proto does not compile")
sys.path.insert(0, stubs)

import grpc  # noqa: E402
from hsm.v1 import signer_pb2, signer_pb2_grpc  # noqa: E402

ca = open(f"{folder}/ca.pem", "rb").read()
# Key and certificate are in one file; each reader takes its part.
client = open(f"{folder}/client.pem", "rb").read()
credentials = grpc.ssl_channel_credentials(ca, client, client)
with grpc.secure_channel(address, credentials) as channel:
    signer = signer_pb2_grpc.SignerStub(channel)
    vote = signer_pb2.SignCometbftVoteRequest(
        key=key,
        chain_id=chain,
        type=signer_pb2.VOTE_TYPE_PREVOTE,
        height=1000,
        round=0,
        block_id=signer_pb2.BlockId(hash=b"\x01" * 32, part_set_total=1, part_set_hash=b"\x02" * 32),
    )
    vote.timestamp.seconds = int(time.time())
    print(signer.SignCometbftVote(vote, timeout=10).signature.hex())
