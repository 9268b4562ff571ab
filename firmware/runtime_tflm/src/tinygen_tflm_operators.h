/* The operators that TFLM's resolvers can be told of, as lists for a macro to go over. */
#ifndef TINYGEN_TFLM_OPERATORS_H
#define TINYGEN_TFLM_OPERATORS_H

/* clang-format off */

/* OP(Name, NAME): the resolver's AddName, and the kernel's Register_NAME. */
#define TINYGEN_TFLM_OPERATORS(OP) \
  OP(Abs, ABS) OP(Add, ADD) OP(AddN, ADD_N) OP(ArgMax, ARG_MAX) OP(ArgMin, ARG_MIN) \
  OP(AssignVariable, ASSIGN_VARIABLE) OP(AveragePool2D, AVERAGE_POOL_2D) \
  OP(BatchMatMul, BATCH_MATMUL) OP(BatchToSpaceNd, BATCH_TO_SPACE_ND) \
  OP(BroadcastArgs, BROADCAST_ARGS) OP(BroadcastTo, BROADCAST_TO) OP(CallOnce, CALL_ONCE) \
  OP(Cast, CAST) OP(Ceil, CEIL) OP(Concatenation, CONCATENATION) OP(Conv2D, CONV_2D) \
  OP(Cos, COS) OP(CumSum, CUMSUM) OP(DepthToSpace, DEPTH_TO_SPACE) \
  OP(DepthwiseConv2D, DEPTHWISE_CONV_2D) OP(Dequantize, DEQUANTIZE) OP(Div, DIV) \
  OP(DynamicUpdateSlice, DYNAMIC_UPDATE_SLICE) OP(Elu, ELU) \
  OP(EmbeddingLookup, EMBEDDING_LOOKUP) OP(Equal, EQUAL) OP(Exp, EXP) \
  OP(ExpandDims, EXPAND_DIMS) OP(Fill, FILL) OP(Floor, FLOOR) OP(FloorDiv, FLOOR_DIV) \
  OP(FloorMod, FLOOR_MOD) OP(FullyConnected, FULLY_CONNECTED) OP(Gather, GATHER) \
  OP(GatherNd, GATHER_ND) OP(Greater, GREATER) OP(GreaterEqual, GREATER_EQUAL) \
  OP(HardSwish, HARD_SWISH) OP(If, IF) OP(L2Normalization, L2_NORMALIZATION) \
  OP(L2Pool2D, L2_POOL_2D) OP(LeakyRelu, LEAKY_RELU) OP(Less, LESS) OP(LessEqual, LESS_EQUAL) \
  OP(Log, LOG) OP(LogSoftmax, LOG_SOFTMAX) OP(LogicalAnd, LOGICAL_AND) \
  OP(LogicalNot, LOGICAL_NOT) OP(LogicalOr, LOGICAL_OR) OP(Logistic, LOGISTIC) \
  OP(MaxPool2D, MAX_POOL_2D) OP(Maximum, MAXIMUM) OP(Mean, MEAN) OP(Minimum, MINIMUM) \
  OP(MirrorPad, MIRROR_PAD) OP(Mul, MUL) OP(Neg, NEG) OP(NotEqual, NOT_EQUAL) OP(Pack, PACK) \
  OP(Pad, PAD) OP(PadV2, PADV2) OP(Prelu, PRELU) OP(Quantize, QUANTIZE) \
  OP(ReadVariable, READ_VARIABLE) OP(ReduceAll, REDUCE_ALL) OP(ReduceMax, REDUCE_MAX) \
  OP(ReduceMin, REDUCE_MIN) OP(Relu, RELU) OP(Relu6, RELU6) OP(Reshape, RESHAPE) \
  OP(ResizeBilinear, RESIZE_BILINEAR) OP(ResizeNearestNeighbor, RESIZE_NEAREST_NEIGHBOR) \
  OP(ReverseV2, REVERSE_V2) OP(Round, ROUND) OP(Rsqrt, RSQRT) OP(SelectV2, SELECT_V2) \
  OP(Shape, SHAPE) OP(Sin, SIN) OP(Slice, SLICE) OP(Softmax, SOFTMAX) \
  OP(SpaceToBatchNd, SPACE_TO_BATCH_ND) OP(SpaceToDepth, SPACE_TO_DEPTH) OP(Split, SPLIT) \
  OP(SplitV, SPLIT_V) OP(Sqrt, SQRT) OP(Square, SQUARE) \
  OP(SquaredDifference, SQUARED_DIFFERENCE) OP(Squeeze, SQUEEZE) OP(StridedSlice, STRIDED_SLICE) \
  OP(Sub, SUB) OP(Sum, SUM) OP(Svdf, SVDF) OP(Tanh, TANH) OP(Transpose, TRANSPOSE) \
  OP(TransposeConv, TRANSPOSE_CONV) OP(UnidirectionalSequenceLSTM, UNIDIRECTIONAL_SEQUENCE_LSTM) \
  OP(Unpack, UNPACK) OP(VarHandle, VAR_HANDLE) OP(While, WHILE) OP(ZerosLike, ZEROS_LIKE)

/* OP(Name): custom operators, AddName alone. */
#define TINYGEN_TFLM_CUSTOM_OPERATORS(OP) \
  OP(CircularBuffer) OP(Decode) OP(Delay) OP(DetectionPostprocess) OP(Energy) OP(EthosU) \
  OP(FftAutoScale) OP(FilterBank) OP(FilterBankLog) OP(FilterBankSpectralSubtraction) \
  OP(FilterBankSquareRoot) OP(Framer) OP(Irfft) OP(OverlapAdd) OP(PCAN) OP(Rfft) OP(Stacker) \
  OP(Window)

/* OP(NAME): kernels for some element types only, Register_NAME. */
#define TINYGEN_TFLM_VARIANTS(OP) \
  OP(ADD_INT16) OP(ADD_INT8) OP(AVERAGE_POOL_2D_INT16) OP(AVERAGE_POOL_2D_INT8) \
  OP(BATCH_MATMUL_INT16) OP(BATCH_MATMUL_INT8) OP(CONV_2D_INT16) OP(CONV_2D_INT4) \
  OP(CONV_2D_INT8) OP(CONV_2D_INT8REF) OP(DEPTHWISE_CONV_2D_INT16) OP(DEPTHWISE_CONV_2D_INT4) \
  OP(DEPTHWISE_CONV_2D_INT8) OP(FULLY_CONNECTED_INT16) OP(FULLY_CONNECTED_INT4) \
  OP(FULLY_CONNECTED_INT8) OP(MAXIMUM_INT8) OP(MAX_POOL_2D_INT16) OP(MAX_POOL_2D_INT8) \
  OP(MINIMUM_INT8) OP(MUL_INT8) OP(PAD_INT8) OP(SOFTMAX_INT16) OP(SOFTMAX_INT8) \
  OP(SOFTMAX_INT8_INT16) OP(SVDF_INT8) OP(TRANSPOSE_CONV_INT8) OP(TRANSPOSE_INT8) \
  OP(UNIDIRECTIONAL_SEQUENCE_LSTM_INT16) OP(UNIDIRECTIONAL_SEQUENCE_LSTM_INT8)

#endif
