{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "/wjb3F34awTQqbviqETnLalS2TIFz44fdXOcktIdUC9YB7KUPUpEACTEIpOmstqCxb/24HNn30VZETT2gy0HDw=="
}
