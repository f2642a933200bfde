{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "zw3QCdj4yBKvN1IYuaR5cv7cZGlMKxqbVrL5NQIbYf3Zv4yrQfXDgTbcLJ7ik3bROLyMQpMhOvC9GrGTXTBOAg=="
}
