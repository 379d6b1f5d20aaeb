%% Evaluates an expression in a process of its own, on a node that has nothing of ours: this text is parsed and evaluated there.
%%
%%   asker (of erpc) ── prints are collected here; its answer is ours
%%     └─ keeper ────── ends the worker when the time is over, or when the asker or our node is gone
%%          └─ worker ── the expression, and how its value is written
%%
%% Given: Us, Text, Language, Patience, MostShown, MostPrinted, MostExplained, MostMemory.
(fun() ->
    Tag = make_ref(),
    Asker = self(),
    %% Of each process: the expression's own, and ours, which formats what is printed.
    Heap = #{size => MostMemory div erlang:system_info(wordsize), kill => true, error_logger => false},
    process_flag(max_heap_size, Heap),
    HasElixir = fun() -> erlang:function_exported('Elixir.Code', eval_string, 3) end,
    Speaks =
        case Language of
            auto -> case HasElixir() of true -> elixir; false -> erlang end;
            elixir ->
                code:ensure_loaded('Elixir.Code'),
                case HasElixir() of true -> elixir; false -> none end;
            erlang -> erlang
        end,

    %% At most so many bytes, and whether that is less than all.
    Cut = fun(Chars, Most) ->
        case unicode:characters_to_binary(Chars) of
            Whole when is_binary(Whole), byte_size(Whole) > Most ->
                {binary:copy(binary:part(Whole, 0, Most)), true};
            Whole when is_binary(Whole) -> {Whole, false};
            _ -> {<<"it cannot be written as text">>, true}
        end
    end,
    %% What looks otherwise where more may be written was not written whole.
    Written = fun(Write, Most) ->
        Chars = Write(0),
        {Bytes, IsCut} = Cut(Chars, Most),
        {Bytes, IsCut orelse unicode:characters_to_binary(Write(1)) =/= Bytes}
    end,
    AsErlang = fun(Term, Most) ->
        Written(fun(More) -> io_lib:format("~tp", [Term], [{chars_limit, Most * (1 + More)}]) end, Most)
    end,
    AsElixir = fun(Term, Most) ->
        %% These bound each collection and each text, not all of them together: of much, less of each.
        {Items, Letters} = case not is_bitstring(Term) andalso erlang:external_size(Term) > 4 * Most of
            true -> {50, 1024};
            false -> {500, Most}
        end,
        Inspect = fun(More) ->
            Options = [{limit, Items + More}, {printable_limit, Letters + More}, {pretty, true}, {width, 80}],
            'Elixir.Kernel':inspect(Term, Options)
        end,
        Written(Inspect, Most)
    end,

    Evaluate = fun
        (elixir) ->
            Run = fun() -> {value, element(1, 'Elixir.Code':eval_string(Text, [], []))} end,
            %% From 1.15 on a CompileError only says that errors were logged, and these are told to who asks for them. Not run
            %% on such an Elixir yet: the releases that the tests evaluate in have an older one.
            case erlang:function_exported('Elixir.Code', with_diagnostics, 2) of
                false -> Run();
                true ->
                    Caught = fun() -> try Run() catch C:R:S -> {raised, C, R, S} end end,
                    case 'Elixir.Code':with_diagnostics([{log, true}], Caught) of
                        {{raised, error, #{'__struct__' := 'Elixir.CompileError', description := Said} = Failed, At}, Told} ->
                            Why = [["\n", It] || #{severity := error, message := It} <- Told],
                            Description = unicode:characters_to_binary([Said | Why]),
                            erlang:raise(error, Failed#{description := Description}, At);
                        {{raised, Class, Reason, At}, _} -> erlang:raise(Class, Reason, At);
                        {Evaluated, _} -> Evaluated
                    end
            end;
        (erlang) ->
            Dotted = fun(Tokens) ->
                case Tokens =/= [] andalso element(1, lists:last(Tokens)) of
                    dot -> Tokens;
                    _ -> Tokens ++ [{dot, 1}]
                end
            end,
            case erl_scan:string(unicode:characters_to_list(Text)) of
                {error, {Line, Module, Why}, _} -> {syntax, Line, Module:format_error(Why)};
                {ok, Tokens, _} ->
                    case erl_parse:parse_exprs(Dotted(Tokens)) of
                        {error, {Line, Module, Why}} -> {syntax, Line, Module:format_error(Why)};
                        {ok, Forms} -> {value, element(2, erl_eval:exprs(Forms, []))}
                    end
            end
    end,

    Frame = fun({Module, Function, Arguments, Where}) ->
        Arity = if is_list(Arguments) -> length(Arguments); true -> Arguments end,
        At = case {lists:keyfind(file, 1, Where), lists:keyfind(line, 1, Where)} of
            {{file, File}, {line, Line}} -> io_lib:format(" (~ts:~w)", [File, Line]);
            _ -> ""
        end,
        io_lib:format("~tp:~tp/~w~ts~n", [Module, Function, Arity, At])
    end,
    Explain = fun
        (elixir, Class, Reason, Stack) ->
            Kind = case Reason of
                #{'__struct__' := Struct} when Class =:= error ->
                    Syntax = ['Elixir.SyntaxError', 'Elixir.TokenMissingError', 'Elixir.MismatchedDelimiterError'],
                    case lists:member(Struct, Syntax) of true -> syntax; false -> error end;
                _ -> Class
            end,
            {Message, IsCut} = Cut('Elixir.Exception':format_banner(Class, Reason, Stack), MostExplained),
            {Trace, _} = Cut('Elixir.Exception':format_stacktrace(Stack), MostExplained),
            {raised, Kind, Message, if Kind =:= syntax; Stack =:= [] -> <<>>; true -> Trace end, IsCut};
        (erlang, Class, Reason, Stack) ->
            {Message, IsCut} = AsErlang(Reason, MostExplained),
            {Trace, _} = Cut([Frame(It) || It <- Stack], MostExplained),
            {raised, Class, Message, Trace, IsCut}
    end,
    %% Who evaluates is no part of what was asked.
    IsTheirs = fun({Module, _, _, _}) ->
        not lists:member(Module, [erl_eval, elixir, 'Elixir.Code', 'Elixir.Module.ParallelChecker'])
    end,
    Work = fun(Keeper) ->
        group_leader(Asker, self()),
        Said = try
            case Evaluate(Speaks) of
                {value, Value} ->
                    {Shown, IsCut} = case Speaks of
                        elixir -> AsElixir(Value, MostShown);
                        erlang -> AsErlang(Value, MostShown)
                    end,
                    {value, Shown, IsCut};
                {syntax, Line, Why} ->
                    {Message, _} = Cut(io_lib:format("~tp: ~ts", [Line, Why]), MostExplained),
                    {raised, syntax, Message, <<>>, false}
            end
        catch
            Class:Reason:Stack ->
                Frames = lists:filter(IsTheirs, Stack),
                try Explain(Speaks, Class, Reason, Frames)
                catch _:_ -> Explain(erlang, Class, Reason, Frames)
                end
        end,
        Keeper ! {Tag, Said},
        %% What is linked to it ends with it, without a report of a crash.
        exit(shutdown)
    end,
    Killed = iolist_to_binary(io_lib:format(
        "killed: something did it, or it took more than ~w MiB of memory", [MostMemory bsr 20])),
    Keep = fun() ->
        Keeper = self(),
        erlang:monitor_node(Us, true),
        Asking = erlang:monitor(process, Asker),
        {Worker, Working} = spawn_opt(fun() -> Work(Keeper) end, [monitor, {max_heap_size, Heap}]),
        %% Told once it is gone.
        End = fun(Outcome) ->
            exit(Worker, kill),
            receive {'DOWN', Working, process, _, _} -> Outcome after 500 -> Outcome end
        end,
        Ended = receive
            %% The same reason whether something killed it or it outgrew its heap.
            {'DOWN', Working, process, _, killed} -> {raised, 'exit', Killed, <<>>, false};
            {'DOWN', Working, process, _, Why} ->
                {Message, IsCut} = AsErlang(Why, MostExplained),
                {raised, 'exit', Message, <<>>, IsCut};
            {Tag, Said} -> End(Said);
            {'DOWN', Asking, process, _, _} -> End(gone);
            {nodedown, Us} -> End(gone)
        after Patience -> End(late)
        end,
        Asker ! {Tag, Ended},
        %% It may be busy with what was printed: then the outcome is what it ends with. What it formats might trap that.
        receive {'DOWN', Asking, process, _, _} -> ok
        after 1000 ->
            exit(Asker, Ended),
            receive {'DOWN', Asking, process, _, _} -> ok after 1000 -> exit(Asker, kill) end
        end
    end,

    %% The worker's group leader. State: what was printed, newest first, its bytes, and the bytes of all that was.
    Put = fun(Bytes, {Printed, Held, All}) ->
        Fits = min(byte_size(Bytes), MostPrinted - Held),
        Now = case Fits of 0 -> Printed; _ -> [binary:copy(binary:part(Bytes, 0, Fits)) | Printed] end,
        {ok, {Now, Held + Fits, All + byte_size(Bytes)}}
    end,
    Do = fun
        Do({put_chars, Encoding, Chars}, State) ->
            Put(unicode:characters_to_binary(Chars, Encoding, unicode), State);
        Do({put_chars, Encoding, Module, Function, Arguments}, State) ->
            Do({put_chars, Encoding, apply(Module, Function, Arguments)}, State);
        Do({put_chars, Chars}, State) -> Do({put_chars, latin1, Chars}, State);
        Do({put_chars, Module, Function, Arguments}, State) ->
            Do({put_chars, latin1, apply(Module, Function, Arguments)}, State);
        Do({requests, Requests}, State) ->
            lists:foldl(fun(It, {ok, Now}) -> Do(It, Now); (_, Failed) -> Failed end, {ok, State}, Requests);
        Do(Request, State) when is_tuple(Request) ->
            %% There is nobody to type anything, and no terminal.
            Gets = [get_line, get_chars, get_until, get_password],
            case lists:member(element(1, Request), Gets) of
                true -> {eof, State};
                false -> {{error, enotsup}, State}
            end;
        Do(_, State) -> {{error, enotsup}, State}
    end,
    Serve = fun Serve(Keeping, State) ->
        receive
            {Tag, Outcome} -> {Outcome, State};
            {'DOWN', Keeping, process, _, _} -> {{raised, 'exit', Killed, <<>>, false}, State};
            {io_request, From, As, Request} ->
                {Reply, Next} = try Do(Request, State) catch _:_ -> {{error, Request}, State} end,
                From ! {io_reply, As, Reply},
                Serve(Keeping, Next);
            _ -> Serve(Keeping, State)
        end
    end,
    case Speaks of
        none -> {no_elixir, none, <<>>, 0};
        _ ->
            {_, Keeping} = spawn_monitor(Keep),
            {Outcome, {Printed, _, All}} = Serve(Keeping, {[], 0, 0}),
            {Outcome, Speaks, iolist_to_binary(lists:reverse(Printed)), All}
    end
end)().
