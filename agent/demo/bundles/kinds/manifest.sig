{
 "algorithm": "ed25519",
 "key_id": "986382dbc10e76b6",
 "signature": "LopNr+uiY0GAWRvTviCVuJJ8Kf082ITZBJpVXq26c+rkxC6ROCdGaQdH3ISo+R3PhfcMQlKt2cU8IXv3BgvVBw=="
}
