{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "0VtBhUxgNSlobWVHrQ28D1Ok/tvXXti78x/w/qweI2vyxbxkbLzLyucHRc524iOUtzpZ16yOdPKc5xcvfIR1CA=="
}
