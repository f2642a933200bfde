{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "QW0W55fn1Hrc/gWG8M0Wa8hCDvywkaj1yh5rBa+9osLKRzwAHyimJf6cWBS2k9ORUm6M77PI13O5SxHGYWTBCQ=="
}
