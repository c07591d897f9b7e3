release("00000001")
