{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "ikU5ao35k5+UOWCTojCOs3kL/LCwgaS9AOsz2ZVW0FPDsZvk91XMluUtLzxqYyIJ8MPeAHWo2kMLUGKtc9brDw=="
}
